"""A person, a few films with public facts, and a tiny recommender of them."""

from collections.abc import Mapping

from pkgllm.assistant.recommend import Recommender
from pkgllm.corpora.catalogue import Catalogue, Item
from pkgllm.graph.personal_graph import Fact, Moment, PersonalGraph, Provenance, Relation
from pkgllm.lm.base_model import BaseModel
from pkgllm.prompts.prompts import PromptWriter

SAID = Provenance("own_answer", "conversation/1")

FILMS = Catalogue(
    [
        Item("1", "The Last Harbour (1995)", {"genre": ("drama",), "director": ("Ann Lee",)}),
        Item("2", "The Last Laugh (1991)", {"genre": ("comedy",), "star": ("Ann Lee",)}),
        Item("3", "Silent Orchard (1984)", {"genre": ("horror",), "director": ("Bo Ek",)}),
        Item("4", "Silent Orchard 2 (1986)", {"genre": ("horror",), "director": ("Bo Ek",)}),
        Item("5", "Velvet Machine (2003)", {"genre": ("comedy", "horror"), "star": ("Cy Oz",)}),
        Item("6", "Winter Letter (1999)", {"genre": ("drama",), "writer": ("Ann Lee",)}),
        Item("7", "Golden River (1972)", {"genre": ("western",)}),
        Item("8", "Catnip Days (2010)"),
    ]
)


def person(said: Mapping[str, Relation], catalogue: Catalogue = FILMS) -> PersonalGraph:
    """Someone who says so of films, one after the other."""
    return PersonalGraph(
        "me",
        tuple(
            Fact(relation, film, catalogue[film].name, Moment(0, place), SAID)
            for place, (film, relation) in enumerate(said.items())
        ),
    )


def writer_of(base: BaseModel, *, max_tokens: int = 300) -> PromptWriter:
    return PromptWriter(
        base.tokenizer,
        form="prose",
        instruction="Recommend.",
        request="Movies, please.",
        max_tokens=max_tokens,
    )


def recommender_of(
    base: BaseModel, catalogue: Catalogue = FILMS, *, max_tokens: int = 300
) -> Recommender:
    return Recommender(
        base.model,
        writer_of(base, max_tokens=max_tokens),
        catalogue,
        max_positions=base.max_positions,
    )
