"""The partition ``dirichlet``: clients that differ in how much they dislike.

With two labels the Dirichlet distribution is a beta distribution. Label skew of this kind is from
Hsu et al. 2019, "Measuring the effects of non-identical data distribution for federated visual
classification", arXiv:1909.06335. There, examples are drawn from a pool; here they belong to
people, so a share is reached by removing examples of the label that a client has too much of.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import numpy as np
from annotated_types import Ge, Le

from pkgllm.errors import DataError
from pkgllm.prompts.partition.partition import STREAM, LabelCounts, Partition, count_labels
from pkgllm.randomness import stream

if TYPE_CHECKING:
    from pkgllm.prompts.groups import Group


@dataclass(frozen=True, slots=True, kw_only=True)
class Dirichlet(Partition):
    """Each client keeps its own share of undesirable examples.

    It is drawn from a Dirichlet distribution round the share of all clients together.
    """

    citation: ClassVar[str] = "Hsu et al. 2019, arXiv:1909.06335"

    name: Literal["dirichlet"] = "dirichlet"
    concentration: Annotated[float, Ge(1e-3), Le(1e6)] = 1.0
    """How close the shares lie: large for alike clients, small for clients with one label each."""

    def assign(
        self,
        groups: "Mapping[str, Sequence[Group]]",
        counts: Mapping[str, LabelCounts],
        seed: int,
    ) -> "Iterator[tuple[str, Sequence[Group]]]":
        """Yield each client with its own groups, cut to its share.

        Raises:
            DataError: If all examples have one label, so that no client could differ from another.
        """
        undesirable = sum(one.undesirable for one in counts.values())
        mean = undesirable / sum(one.examples for one in counts.values())
        if not 0 < mean < 1:
            raise DataError(
                "partition dirichlet needs desirable and undesirable completions, got one label "
                "only; set groups.negatives.uniform to 1 or more"
            )
        for client, own in groups.items():
            generator = stream(seed, STREAM, client)
            share = draw_share(mean, concentration=self.concentration, generator=generator)
            yield client, skewed(own, share, generator)


def draw_share(mean: float, *, concentration: float, generator: np.random.Generator) -> float:
    """Draw a client's share of undesirable examples from Beta(c m, c (1 - m)).

    Its variance is m (1 - m) / (c + 1).

    Args:
        mean: ``m``, the share of all clients together, between 0 and 1, both excluded.
        concentration: ``c``, positive.
        generator: The client's own.
    """
    return float(generator.beta(concentration * mean, concentration * (1 - mean)))


def counts_for_share(desirable: int, undesirable: int, share: float) -> tuple[int, int]:
    """Return how many examples of each label to keep for a share of undesirable ones.

    One label is kept whole and the other cut, which leaves as many examples as the share allows.
    Of the counts that are possible so, the one nearest to the share is taken, the larger one of
    two that are equally near. A client with one label only keeps all.

    Args:
        desirable: What the client has.
        undesirable: What the client has.
        share: Wanted share of undesirable examples, from 0 to 1.

    Returns:
        Desirable and undesirable examples to keep.

    Example:
        >>> counts_for_share(6, 6, 0.25), counts_for_share(6, 6, 0.75), counts_for_share(6, 6, 1.0)
        ((6, 2), (2, 6), (0, 6))
    """
    if desirable == 0 or undesirable == 0:
        return desirable, undesirable
    if undesirable / (desirable + undesirable) > share:
        return desirable, _nearest(desirable, undesirable, share)
    return _nearest(undesirable, desirable, 1 - share), undesirable


def skewed(
    groups: "Sequence[Group]", share: float, generator: np.random.Generator
) -> "tuple[Group, ...]":
    """Cut a client's groups to a share of undesirable examples.

    Args:
        groups: All of the client.
        share: Wanted share of undesirable examples, from 0 to 1; :func:`counts_for_share` says how
            near it comes.
        generator: Draws which examples stay, each as likely as any other of its label.
    """
    from pkgllm.prompts.partition.cuts import cut

    has = count_labels(groups)
    places: dict[bool, list[tuple[int, int]]] = {True: [], False: []}
    for number, group in enumerate(groups):
        for place, completion in enumerate(group.completions):
            places[completion.desirable].append((number, place))
    wanted = counts_for_share(has.desirable, has.undesirable, share)
    kept: set[tuple[int, int]] = set()
    for label, count in zip((True, False), wanted, strict=True):
        drawn = generator.permutation(len(places[label]))[:count]
        kept |= {places[label][int(index)] for index in drawn}
    return cut(groups, lambda number, place: (number, place) in kept)


def _nearest(whole: int, other: int, share: float) -> int:
    """Return how many of the other label make its share nearest, beside all of a label."""
    below = math.floor(whole * share / (1 - share))
    return min(
        (count for count in (below, below + 1) if count <= other),
        key=lambda count: (abs(count / (whole + count) - share), -count),
    )
