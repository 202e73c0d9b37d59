"""Titles that a model generates, for people without a catalogue.

The titles become a catalogue, which is then ranked exactly. Titles that are newer than the training
or in no list can be recommended so. Whether a title exists is not checked.
"""

from collections.abc import Collection
from dataclasses import replace

from pkgllm.assistant.guidance import Constraints
from pkgllm.assistant.recommend import NO_CONSTRAINTS, Recommender
from pkgllm.corpora.catalogue import Catalogue, Item
from pkgllm.errors import ModelError
from pkgllm.evaluation.lists.generation import ListDecoder
from pkgllm.evaluation.lists.lists import answer_lines, without_mark
from pkgllm.graph.personal_graph import PersonalGraph

ANSWERS = 64
"""Number of sampled answers; with more, the most probable titles are likelier among them."""

_MAX_NEW_TOKENS = 32


def generated_catalogue(
    recommender: Recommender,
    graph: PersonalGraph,
    request: str = "",
    constraints: Constraints = NO_CONSTRAINTS,
    *,
    seed: int = 0,
    known: Collection[str] = (),
) -> Catalogue:
    """Generate titles, and return those that are not in the graph.

    Args:
        recommender: The model; its own catalogue is not used.
        graph: The facts in the prompt.
        request: The person's request in their own words.
        constraints: In the prompt only: there are no public facts to check them with.
        seed: Of the sampling.
        known: Further names to leave out.

    Raises:
        DataError: If the request alone does not fit into a prompt.
        ModelError: If the model generates no new title.
    """
    prompt = recommender.prompt(graph, request, constraints)
    decoder = ListDecoder(
        recommender.model, max_positions=recommender.max_positions, batch_size=ANSWERS
    )
    writer = recommender.writer
    terminator, length = writer.terminator, _MAX_NEW_TOKENS
    # The random numbers depend on the client's name, so these answers differ.
    draws = [replace(prompt, client=f"{prompt.client}, draw {n}") for n in range(ANSWERS)]
    answers = (
        *decoder.greedy([prompt], terminator=terminator, max_new_tokens=length),
        *decoder.sampled(draws, terminator=terminator, max_new_tokens=length, seed=seed),
    )
    excluded = {name.casefold() for name in (*known, *(fact.name for fact in graph.facts))}
    names: dict[str, str] = {}
    for answer in answers:
        lines = answer_lines(writer.text_of(answer.token_ids))
        # The last title of a truncated answer may be incomplete.
        for line in lines if answer.finished else lines[:-1]:
            name = without_mark(line)
            if name.casefold() not in excluded:
                names.setdefault(name.casefold(), name)
    if not names:
        raise ModelError(
            f"graph of {graph.owner!r}: the model generated no title outside the graph in "
            f"{len(answers)} answers; give a catalogue, or another request"
        )
    return Catalogue(Item(f"written-{n}", name) for n, name in enumerate(names.values(), start=1))
