"""Local noise on the clients' side: an update is clipped and noised before it is a message.

A server asks again where an answer was lost: a SuperNode died, or the server did and does the round
again. Fresh noise on the same update would be a second release, of which the server's ledger knows
nothing if the first answer was seen on its way. So a client may keep its last share. It is sent
again only to an instruction that is the same to the bit, adapter included: the same noise on
another update would give away how the two differ.
"""

import hashlib
from collections.abc import Callable, Collection
from pathlib import Path

import torch
from peft import PeftModel

from pkgllm.errors import FederationError
from pkgllm.federation.client_state import ClientStates
from pkgllm.federation.messages import Instruction
from pkgllm.lm.adapter import AdapterState, trained_keys
from pkgllm.privacy.device_ledger import DeviceShares
from pkgllm.privacy.ledger import ChargedBefore
from pkgllm.privacy.local_noise import LocalNoise, noise_share
from pkgllm.privacy.noise import NoiseSource, secure

_ASKED = "asked"
"""Beside the share: the digest of the instruction that it answers."""


class ClientNoise:
    """Clips the updates of clients and adds to each its client's share of the noise.

    See :mod:`~pkgllm.privacy.local_noise`. Every client and round has a stream of its own.

    Args:
        settings: The client's own; the server must count on the same.
        source: Of the noise.
        trained: Keys of the tensors that are trained; of the others nothing is sent.
        charge: Writes a client's release down before it is made, where clients keep a ledger;
            raises where it cannot.
        shares: Keeps the last share, where a server may ask again for what it has been sent.
    """

    def __init__(
        self,
        settings: LocalNoise,
        *,
        source: NoiseSource,
        trained: Collection[str],
        charge: Callable[[str, int], None] = lambda client, round_num: None,
        shares: ClientStates | None = None,
    ) -> None:
        self._settings = settings
        self._source = source
        self._trained = trained
        self._charge = charge
        self._shares = shares

    def check(self, asked: Instruction) -> None:
        """Refuse before training what the server would not account for as it is made.

        Raises:
            FederationError: If the server counts on other noise, or on none.
        """
        if asked.local_noise != self._settings:
            raise FederationError(
                f"the server counts on {asked.local_noise or 'no noise of clients'}, and this "
                f"client adds {self._settings}; give both sides the same privacy section and "
                "mode.min_updates"
            )

    def protect(self, client: str, asked: Instruction, trained: AdapterState) -> AdapterState:
        """Return what a client may send of what it has trained.

        Raises:
            RunError: If the share before cannot be read, or the new one cannot be kept.
        """
        kept = self._kept(client, asked)
        if kept is not None:
            return kept
        self._charge(client, asked.round_num)
        share = noise_share(
            asked.adapter,
            trained,
            self._settings,
            self._source.generator("share", client, asked.round_num),
            trained=self._trained,
        )
        if self._shares:
            state = {**share, _ASKED: _digest(asked)}
            self._shares.write(client, state, round_num=asked.round_num, accepted_round=0)
        return share

    def _kept(self, client: str, asked: Instruction) -> AdapterState | None:
        """Return the share that was made for the same instruction; None where there is none."""
        if not self._shares or asked.round_num not in self._shares.rounds(client):
            return None
        state = self._shares.read(client, asked.round_num)
        same = torch.equal(state.pop(_ASKED), _digest(asked))
        return dict(sorted(state.items())) if same else None


def _digest(asked: Instruction) -> torch.Tensor:
    digest = hashlib.sha256()
    for name, tensors in sorted({"": asked.adapter, **asked.broadcast.tensors}.items()):
        for key, tensor in tensors.items():
            digest.update(f"{name} {key} {tuple(tensor.shape)}\n".encode())
            digest.update(tensor.contiguous().numpy().tobytes())
    numbers = sorted(asked.broadcast.numbers.items())
    scalars = asked.round_num, asked.learning_rate, asked.kl_baseline, asked.accepted_round
    digest.update(repr((numbers, scalars, asked.local_noise)).encode())
    return torch.frombuffer(bytearray(digest.digest()), dtype=torch.uint8)


def make_noise(
    settings: LocalNoise | None,
    policy: PeftModel,
    source: NoiseSource,
    *,
    charged: ChargedBefore | None = None,
) -> ClientNoise | None:
    """Return what adds each client's share of the noise; None where clients add none."""
    if settings is None:
        return None
    mechanism = settings.mechanism

    def charge(client: str, round_num: int) -> None:
        if charged is not None:
            charged(round_num, {client: mechanism})

    return ClientNoise(settings, source=source, trained=trained_keys(policy), charge=charge)


def make_device_noise(shares: DeviceShares, policy: PeftModel, folder: Path) -> ClientNoise:
    """Return what adds a client's share on its own device."""
    return ClientNoise(
        shares.settings,
        source=secure(),
        trained=trained_keys(policy),
        charge=shares.charge,
        shares=ClientStates(folder),
    )
