"""Who takes part in a round."""

from collections.abc import Sequence

from pkgllm.errors import FederationError
from pkgllm.randomness import stream

COHORT = ("cohort",)
"""Purpose of the random stream that cohorts are drawn from, unless a training has its own."""


def sample_cohort(
    clients: Sequence[str],
    cohort_size: int,
    seed: int,
    round_num: int,
    purpose: Sequence[str] = COHORT,
) -> tuple[str, ...]:
    """Draw the clients of a round uniformly without replacement.

    The draw depends on the set of clients, the seed, the purpose and the round alone.

    Args:
        clients: Ids of all clients, in any order.
        cohort_size: How many to draw, at least 1.
        seed: The run's seed.
        round_num: The round, from 1.
        purpose: Names of the random stream, see :func:`pkgllm.randomness.stream`.

    Returns:
        The cohort, sorted.

    Raises:
        FederationError: If there are fewer clients than the cohort needs.
        ValueError: If ``cohort_size`` is not positive or a client stands twice in ``clients``.

    Example:
        >>> sample_cohort(["c", "a", "b"], 3, seed=0, round_num=1)
        ('a', 'b', 'c')
    """
    if cohort_size < 1:
        raise ValueError(f"cohort_size must be at least 1, got {cohort_size}")
    population = sorted(clients)
    if len(set(population)) != len(population):
        raise ValueError("clients must not hold an id twice")
    if cohort_size > len(population):
        raise FederationError(
            f"round {round_num}: cohort_size must be at most the number of training clients, "
            f"{len(population)}, got {cohort_size}; lower it or add clients"
        )
    draws = stream(seed, *purpose, round_num)
    drawn = draws.choice(len(population), size=cohort_size, replace=False)
    return tuple(population[index] for index in sorted(drawn))
