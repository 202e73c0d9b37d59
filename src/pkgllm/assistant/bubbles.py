"""Find the bubble of a person: properties that their likes share more often than by chance."""

from collections import Counter
from dataclasses import dataclass

import numpy as np
from scipy.stats import hypergeom  # type: ignore[import-untyped]  # scipy ships no types

from pkgllm.assistant.scopes import Scopes
from pkgllm.evaluation.significance import holm
from pkgllm.graph.personal_graph import PersonalGraph

MIN_SUPPORT = 3
LEVEL = 0.05


@dataclass(frozen=True, slots=True)
class Bubble:
    """A property that a person's likes share."""

    scope: str
    value: str
    support: int
    """Number of likes that have it."""
    likes: int
    """Number of likes in the catalogue."""
    items: int
    """Number of items in the catalogue that have it."""
    lift: float
    """Its share of the likes divided by its share of the catalogue."""
    p_value: float
    """Corrected for all tested properties."""


def find_bubbles(
    graph: PersonalGraph,
    scopes: Scopes,
    *,
    min_support: int = MIN_SUPPORT,
    level: float = LEVEL,
) -> tuple[Bubble, ...]:
    r"""Return the properties that a person's likes share beyond chance, smallest p-value first.

    If likes were independent of a property that :math:`K` of :math:`N` items have, the number of
    :math:`n` likes with it would be hypergeometric; the p-value is the probability of at least the
    observed number. Holm's correction is over every property of any like that at least
    ``min_support`` items have; the others cannot be a bubble.

    Args:
        graph: The person's facts.
        scopes: The catalogue's properties.
        min_support: Least number of likes that share a property.
        level: Largest corrected p-value.

    Example:
        >>> from pkgllm.corpora.catalogue import Catalogue, Item
        >>> from pkgllm.graph.personal_graph import Fact, Moment, Provenance
        >>> animals = ["cat"] * 10 + ["dog"] * 90
        >>> scopes = Scopes(Catalogue([
        ...     Item(f"{n:02}", f"Clip {chr(65 + n % 26)}{n}x", {"animal": (animal,)})
        ...     for n, animal in enumerate(animals)
        ... ]))
        >>> said = Provenance("own_answer", "conversation/1")
        >>> graph = PersonalGraph("p", tuple(
        ...     Fact("liked", f"{n:02}", "a clip", Moment(0, n), said) for n in (0, 1, 2, 3, 50)
        ... ))
        >>> [(b.scope, b.value, b.support, round(b.lift, 3)) for b in find_bubbles(graph, scopes)]
        [('animal', 'cat', 4, 8.0)]
    """
    catalogue = scopes.catalogue
    liked = [catalogue[f.tail] for f in graph.with_relation("liked") if f.tail in catalogue]
    support = Counter(pair for item in liked for pair in set(scopes.values(item)))
    properties = [p for p in sorted(support) if len(scopes.items(*p)) >= min_support]
    if not properties:
        return ()
    counts = np.array([support[pair] for pair in properties])
    sizes = np.array([len(scopes.items(*pair)) for pair in properties])
    p_values = hypergeom.sf(counts - 1, len(catalogue), sizes, len(liked))
    corrected = holm(np.clip(p_values, 0.0, 1.0))
    lifts = (counts / len(liked)) / (sizes / len(catalogue))
    bubbles = [
        Bubble(scope, value, int(count), len(liked), int(size), float(lift), float(p))
        for (scope, value), count, size, lift, p in zip(
            properties, counts, sizes, lifts, corrected, strict=True
        )
        if count >= min_support and p <= level
    ]
    return tuple(sorted(bubbles, key=lambda b: (b.p_value, -b.support, b.scope, b.value)))
