"""Named random streams: one seed in the configuration, one independent stream per purpose."""

import hashlib

import numpy as np


def stream(seed: int, *names: str | int) -> np.random.Generator:
    """Return the random generator of a purpose.

    It depends on the seed and the names alone, not on earlier draws, so a client's draws in round 7
    do not depend on the other clients of the cohort, or on where a run was resumed.

    Args:
        seed: The run's seed, not negative.
        names: The purpose, for example ``("cohort", round_num)``.

    Example:
        >>> a = stream(0, "cohort", 3).integers(1000)
        >>> b = stream(0, "cohort", 3).integers(1000)
        >>> bool(a == b)
        True
    """
    digest = hashlib.sha256("\x1f".join(map(str, names)).encode()).digest()
    words = [int.from_bytes(digest[i : i + 4], "little") for i in range(0, len(digest), 4)]
    return np.random.default_rng(np.random.SeedSequence([seed, *words]))


def torch_seed(seed: int, *names: str | int) -> int:
    """Return a 63-bit seed for ``torch.Generator.manual_seed``, from a named stream."""
    return int(stream(seed, *names).integers(2**63 - 1))
