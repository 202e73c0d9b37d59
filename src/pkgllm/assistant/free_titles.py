"""Titles that a model writes by itself, for people without a catalogue.

The titles that it writes become a catalogue of their own, which is then ranked exactly. So what
appeared after the training, or in no list, can be recommended, and nothing is rebuilt. Whether such
a title exists nobody has checked.
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
"""Answers that are drawn; the more, the likelier the most probable titles are among them."""

_MAX_NEW_TOKENS = 32


def written_catalogue(
    recommender: Recommender,
    graph: PersonalGraph,
    request: str = "",
    constraints: Constraints = NO_CONSTRAINTS,
    *,
    seed: int = 0,
    known: Collection[str] = (),
) -> Catalogue:
    """Let the model write titles, and return those that the graph does not speak of.

    Args:
        recommender: The model; its own catalogue is not used.
        graph: What the model reads.
        request: What the person asks for in their own words.
        constraints: The model reads them; what they say of public facts cannot be checked.
        seed: Of the draws.
        known: Further names that are not wanted.

    Raises:
        DataError: If the request alone does not fit into a prompt.
        ModelError: If the model writes no new title.
    """
    prompt = recommender.prompt(graph, request, constraints)
    decoder = ListDecoder(
        recommender.model, max_positions=recommender.max_positions, batch_size=ANSWERS
    )
    writer = recommender.writer
    terminator, length = writer.terminator, _MAX_NEW_TOKENS
    # Answers that are drawn for different names differ, and share a batch.
    draws = [replace(prompt, client=f"{prompt.client}, draw {n}") for n in range(ANSWERS)]
    answers = (
        *decoder.greedy([prompt], terminator=terminator, max_new_tokens=length),
        *decoder.sampled(draws, terminator=terminator, max_new_tokens=length, seed=seed),
    )
    seen = {name.casefold() for name in (*known, *(fact.name for fact in graph.facts))}
    names: dict[str, str] = {}
    for answer in answers:
        lines = answer_lines(writer.text_of(answer.token_ids))
        # The last title of an answer that was cut off may be half of one.
        for line in lines if answer.finished else lines[:-1]:
            name = without_mark(line)
            if name.casefold() not in seen:
                names.setdefault(name.casefold(), name)
    if not names:
        raise ModelError(
            f"graph of {graph.owner!r}: the model wrote no title that the graph does not hold, in "
            f"{len(answers)} answers; give it a catalogue, or another request"
        )
    return Catalogue(Item(f"written-{n}", name) for n, name in enumerate(names.values(), start=1))
