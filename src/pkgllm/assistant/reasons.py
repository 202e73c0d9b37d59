"""Why something is recommended: which of one's own facts carry it, and what connects them publicly.

Both are measured or looked up. No text is generated, because a model's account of its own answer
need not be true.
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
class CarryingFact:
    """A fact without which the item would be less probable."""

    fact: Fact
    change: float
    """What the item's log-probability loses without the fact, nats; above 0."""
    share: float
    """Of what it loses over all facts that carry it, each left out alone."""


@dataclass(frozen=True, slots=True)
class Reasons:
    """Why one item is recommended."""

    facts: tuple[CarryingFact, ...]
    """The facts that carry it most, the strongest first; none where no fact does."""
    paths: tuple[PublicPath, ...]
    """From a fact's item to the recommended one: those facts' first, the rarest value first."""


def give_reasons(
    recommender: Recommender,
    graph: PersonalGraph,
    recommendations: Sequence[Recommendation],
    request: str = "",
    constraints: Constraints = NO_CONSTRAINTS,
) -> tuple[Reasons, ...]:
    r"""Say for each recommendation what carries it.

    The change that a fact :math:`f` makes is :math:`\log p(t \mid G) - \log p(t \mid G - f)`, with
    :math:`G` the facts that fit into the prompt; facts that did not fit had no part in it. All
    recommendations share the prompts.

    Args:
        recommender: What recommended.
        graph: What the model read.
        recommendations: What it recommended from this graph.
        request: As then.
        constraints: As then.
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
    spoken_of = [catalogue[fact.tail] for fact in graph.facts if fact.tail in catalogue]
    public = PublicFacts({item.id: item.facts for item in (*spoken_of, *items)})
    counts = catalogue.value_counts
    reasons = []
    for item, of_item in zip(items, changes.T, strict=True):
        carrying = _carrying(graph.facts, of_item)
        order = {found.fact.tail: place for place, found in enumerate(carrying)}
        paths = [path for known in spoken_of for path in public.between(known.id, item.id)]
        paths.sort(key=lambda path: (order.get(path.one, len(order)), counts[path.value]))
        reasons.append(Reasons(carrying, tuple(paths[:PATHS_SHOWN])))
    return tuple(reasons)


def _carrying(facts: Sequence[Fact], changes: NDArray[np.float64]) -> tuple[CarryingFact, ...]:
    total = changes.clip(min=0).sum()
    return tuple(
        CarryingFact(facts[place], float(changes[place]), float(changes[place] / total))
        for place in np.argsort(-changes, kind="stable")[:FACTS_SHOWN].tolist()
        if changes[place] > 0
    )
