"""Public groups: of invented people, drawn from the catalogue, hence of no client."""

from dataclasses import replace

import numpy as np

from pkgllm.corpora.catalogue import Catalogue
from pkgllm.graph.personal_graph import Fact, Moment, PersonalGraph, Provenance
from pkgllm.prompts.groups import Group, GroupBuilder, with_mismatched
from pkgllm.prompts.settings import GroupSettings
from pkgllm.randomness import stream

NUM_PUBLIC_GROUPS = 16

_MOST_CONTEXT = 16
"""Facts before the hidden ones where the run does not bound them."""

_INVENTED = Provenance("own_answer", "catalogue")


def public_groups(
    catalogue: Catalogue, builder: GroupBuilder, settings: GroupSettings, *, seed: int
) -> tuple[Group, ...]:
    """Invent people, and return one group of each, with mismatched completions.

    An invented person likes films that are drawn uniformly from the catalogue without replacement,
    in the order of the draw, or all films of a small catalogue. The last ``hidden_facts`` are
    hidden and asked for; before them stand ``min_context`` to ``max_context``, each number equally
    likely, or up to 16 where there is no maximum. Prompt, completions and negatives are made as for
    real clients. A group's mismatched completions are those of the next invented person.

    The groups depend on catalogue, settings and seed alone: a resumed run makes the same ones, and
    no client's facts change them.

    Raises:
        DataError: If ``prompt.max_tokens`` does not even hold the request.
    """
    one = replace(
        settings, stride=settings.hidden_facts, min_context=0, max_context=None, max_groups=1
    )
    groups: list[Group] = []
    for number in range(NUM_PUBLIC_GROUPS):
        generator = stream(seed, "public_prompts", number)
        invented = _invented(number, catalogue, settings, generator)
        groups += builder.build(invented, generator, one)
    return with_mismatched(groups)


def _invented(
    number: int, catalogue: Catalogue, settings: GroupSettings, generator: np.random.Generator
) -> PersonalGraph:
    most = settings.max_context
    if most is None:
        most = max(_MOST_CONTEXT, settings.min_context)
    num_facts = settings.hidden_facts + generator.integers(settings.min_context, most + 1)
    drawn = generator.permutation(len(catalogue))[:num_facts]
    films = [catalogue.items[int(column)] for column in drawn]
    return PersonalGraph(
        f"made up {number}",
        tuple(
            Fact("liked", film.id, film.name, Moment(0, position), _INVENTED)
            for position, film in enumerate(films)
        ),
    )
