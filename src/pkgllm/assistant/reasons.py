"""Why an item is recommended: the person's facts that raise its probability, and public paths.

Both are measured or looked up. No text is generated, because a model's explanation of its own
answer need not be true.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pkgllm.assistant.guidance import Constraints
from pkgllm.assistant.recommend import NO_CONSTRAINTS, Recommendation, Recommender
from pkgllm.graph.personal_graph import Fact, PersonalGraph
from pkgllm.graph.public_facts import PublicFacts, PublicPath

FACTS_SHOWN = 3
PATHS_SHOWN = 3


@dataclass(frozen=True, slots=True)
class SupportingFact:
    """A fact without which the item would be less probable."""

    fact: Fact
    change: float
    """Decrease of the item's log-probability without the fact, nats; above 0."""
    share: float
    """``change`` divided by its sum over all supporting facts, each left out alone."""


@dataclass(frozen=True, slots=True)
class Reasons:
    """Why one item is recommended."""

    facts: tuple[SupportingFact, ...]
    """The supporting facts with the largest change, largest first."""
    paths: tuple[PublicPath, ...]
    """To the recommended item: from ``facts`` first, then by rarity of the value."""


def give_reasons(
    recommender: Recommender,
    graph: PersonalGraph,
    recommendations: Sequence[Recommendation],
    request: str = "",
    constraints: Constraints = NO_CONSTRAINTS,
) -> tuple[Reasons, ...]:
    r"""Return the reasons for each recommendation.

    The change by a fact :math:`f` is :math:`\log p(t \mid G) - \log p(t \mid G - f)`, with
    :math:`G` the facts that fit into the prompt. All recommendations share the prompts.

    Args:
        recommender: As of the recommendations, like the other arguments.
        graph: The facts in the prompt.
        recommendations: Of this recommender from this graph.
        request: The person's request in their own words.
        constraints: As of the recommendations.
    """
    if not recommendations:
        return ()
    shown = recommender.prompt(graph, request, constraints).tails
    graph = graph.only(fact for fact in graph.facts if fact.tail in shown)
    without = [graph.without({fact.tail}) for fact in graph.facts]
    items = [recommendation.item for recommendation in recommendations]
    scores = recommender.log_probabilities([graph, *without], items, request, constraints)
    changes = scores[0] - scores[1:]
    catalogue = recommender.catalogue
    known_items = [catalogue[fact.tail] for fact in graph.facts if fact.tail in catalogue]
    public = PublicFacts({item.id: item.facts for item in (*known_items, *items)})
    counts = catalogue.value_counts
    reasons = []
    for item, of_item in zip(items, changes.T, strict=True):
        supporting = _supporting(graph.facts, of_item)
        order = {one.fact.tail: place for place, one in enumerate(supporting)}
        paths = [path for known in known_items for path in public.between(known.id, item.id)]
        paths.sort(key=lambda path: (order.get(path.one, len(order)), counts[path.value]))
        reasons.append(Reasons(supporting, tuple(paths[:PATHS_SHOWN])))
    return tuple(reasons)


def _supporting(facts: Sequence[Fact], changes: NDArray[np.float64]) -> tuple[SupportingFact, ...]:
    total = changes.clip(min=0).sum()
    return tuple(
        SupportingFact(facts[place], float(changes[place]), float(changes[place] / total))
        for place in np.argsort(-changes, kind="stable")[:FACTS_SHOWN].tolist()
        if changes[place] > 0
    )
