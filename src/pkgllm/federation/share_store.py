"""The share of the noise that a device sent last, so that who asks again gets the same one.

A server asks again where an answer was lost: a SuperNode died, or the server did and does the round
again. Fresh noise on the same update would be a second release, of which the server's ledger knows
nothing if the first answer was seen on its way. So a share is kept until another one is made. It is
sent again only to an instruction that is the same to the bit, adapter included: the same noise on
another update would give away how the two differ.
"""

import hashlib
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from pkgllm.errors import RunError
from pkgllm.federation.flower.records import Instruction
from pkgllm.files import write_atomically
from pkgllm.lm.adapter import AdapterState

_ASKED = "asked"


class ShareStore:
    """One share in one file.

    Args:
        path: The file; its folder must exist.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self, asked: Instruction) -> AdapterState | None:
        """Return the share that was made for the same instruction; None where there is none.

        Raises:
            RunError: If the file cannot be read.
        """
        if not self._path.exists():
            return None
        try:
            with safe_open(self._path, "pt") as file:
                if file.metadata()[_ASKED] != _digest(asked):
                    return None
                return {key: file.get_tensor(key) for key in sorted(file.keys())}
        except (OSError, SafetensorError, KeyError, TypeError) as error:
            raise RunError(
                f"{self._path}: must hold the share that was sent last: {error}; remove it, and a "
                "new one is made and charged"
            ) from error

    def write(self, asked: Instruction, share: AdapterState) -> None:
        """Keep a share in place of the one before, on the disk.

        Raises:
            RunError: If it cannot be written; then it must not be sent.
        """
        write_atomically(self._path, save(dict(share), {_ASKED: _digest(asked)}))


def _digest(asked: Instruction) -> str:
    found = hashlib.sha256()
    for key, tensor in (*asked.adapter.items(), *(asked.control or {}).items()):
        found.update(f"{key} {tuple(tensor.shape)}\n".encode())
        found.update(tensor.contiguous().numpy().tobytes())
    numbers = (asked.round_num, asked.learning_rate, asked.proximal_mu, asked.kl_baseline)
    told = (numbers, asked.control is None, asked.accepted_round, asked.local_noise)
    found.update(repr(told).encode())
    return found.hexdigest()
