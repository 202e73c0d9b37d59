"""Synthetic groups: a client's own graph with facts hidden anew, and facts that rules add.

Both are made on the client from its training graph and the public catalogue. A completion's source
tells them apart: a hidden fact keeps its relation, and a fact that a rule adds is ``rule``. None of
them enters the person's graph or a prompt.
"""

import numpy as np

from pkgllm.graph.personal_graph import Fact, PersonalGraph
from pkgllm.prompts.groups import Group, GroupBuilder
from pkgllm.prompts.item_similarity import AdamicAdar
from pkgllm.prompts.settings import SyntheticSettings


def synthetic_groups(
    graph: PersonalGraph,
    builder: GroupBuilder,
    settings: SyntheticSettings,
    similarity: AdamicAdar | None,
    generator: np.random.Generator,
    *,
    max_context: int | None = None,
) -> tuple[Group, ...]:
    """Return a client's synthetic groups, without mismatched completions.

    A graph edit hides 1 to ``max_hidden`` liked or disliked facts, at least one of them liked and
    at least one fact staying visible, and asks for them; known items of the prompt are undesirable
    answers beside the run's usual negatives. The hidden facts are drawn whatever their time, so the
    prompt may hold later ones. A graph with fewer than two facts, or no liked one, makes none.

    Rule facts are the items that are most similar to the liked ones. They may include an item that
    is held out of the person, because leaving it out would reveal that it is held out.

    Args:
        graph: The client's training graph.
        builder: Of the run.
        settings: How many.
        similarity: Of the catalogue's items; None for no rule facts.
        generator: Of every draw.
        max_context: Facts that a prompt may hold, the newest; any number when None.
    """
    groups = [
        group
        for _ in range(settings.graph_edits)
        if (group := _edited(graph, builder, settings, max_context, generator)) is not None
    ]
    if similarity is not None and settings.rule_facts:
        liked = [fact.tail for fact in graph.with_relation("liked")]
        derived = similarity.strongest(liked, graph.tails, settings.rule_facts, generator)
        if derived:
            groups.append(
                builder.group(_newest(graph, max_context), (), generator, derived=derived)
            )
    return tuple(groups)


def _edited(
    graph: PersonalGraph,
    builder: GroupBuilder,
    settings: SyntheticSettings,
    max_context: int | None,
    generator: np.random.Generator,
) -> Group | None:
    verdicts = graph.with_relation("liked", "disliked")
    liked = [index for index, fact in enumerate(verdicts) if fact.relation == "liked"]
    most = min(settings.max_hidden, len(verdicts), len(graph.facts) - 1)
    if not liked or most < 1:
        return None
    num_hidden = int(generator.integers(1, most + 1))
    first = liked[int(generator.integers(len(liked)))]
    others = [index for index in range(len(verdicts)) if index != first]
    drawn = generator.choice(others, num_hidden - 1, replace=False) if num_hidden > 1 else ()
    hidden: list[Fact] = [verdicts[index] for index in sorted((first, *map(int, drawn)))]
    rest = graph.without({fact.tail for fact in hidden})
    return builder.group(
        _newest(rest, max_context), hidden, generator, num_known=settings.known_items
    )


def _newest(graph: PersonalGraph, count: int | None) -> PersonalGraph:
    return graph if count is None else graph.only(graph.facts[max(0, len(graph.facts) - count) :])
