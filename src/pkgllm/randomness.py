"""Named random streams: one seed in the configuration, one independent stream per purpose."""

import hashlib

import numpy as np


def stream(seed: int, *names: str | int) -> np.random.Generator:
    """Return the generator that belongs to a purpose.

    The stream depends on the seed and on every name, and on nothing that was drawn before, so a
    client's draws in round 7 are the same whoever else was sampled and wherever a run resumed.

    Args:
        seed: The run's seed, not negative.
        names: What the stream is for, for example ``("cohort", round_num)``.

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
    """Return a 63-bit seed for ``torch.Generator.manual_seed``, drawn from a named stream."""
    return int(stream(seed, *names).integers(2**63 - 1))
