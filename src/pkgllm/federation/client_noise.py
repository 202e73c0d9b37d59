"""Local noise on the clients' side: an update is clipped and noised before it is a message."""

from collections.abc import Callable, Collection

from pkgllm.errors import FederationError
from pkgllm.federation.flower.records import Instruction
from pkgllm.federation.share_store import ShareStore
from pkgllm.lm.adapter import AdapterState
from pkgllm.privacy.local_noise import LocalNoise, noise_share
from pkgllm.privacy.noise import NoiseSource


class ClientNoise:
    """Clips the updates of clients and adds to each its client's share of the noise.

    See :mod:`~pkgllm.privacy.local_noise`. Every client and round has a stream of its own.

    Args:
        settings: The client's own; the server must count on the same.
        source: Of the noise.
        trained: Keys of the tensors that are trained; of the others nothing is sent.
        charge: Writes a client's release down before it is made, where clients keep a ledger;
            raises where it cannot.
        store: Keeps the last share, where a server may ask again for what it has been sent.
    """

    def __init__(
        self,
        settings: LocalNoise,
        *,
        source: NoiseSource,
        trained: Collection[str],
        charge: Callable[[str, int], None] = lambda client, round_num: None,
        store: ShareStore | None = None,
    ) -> None:
        self._settings = settings
        self._source = source
        self._trained = trained
        self._charge = charge
        self._store = store

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

        Args:
            client: Whose.
            asked: What the client received.
            trained: The adapter after its local steps.
        """
        kept = self._store.read(asked) if self._store else None
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
        if self._store:
            self._store.write(asked, share)
        return share
