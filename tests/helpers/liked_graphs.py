"""Clients that like letters, for the baselines that learn from likes."""

from collections.abc import Iterable

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from pkgllm.corpora.catalogue import Catalogue, Item
from pkgllm.evaluation.scorer import ClientQueries
from pkgllm.graph.personal_graph import Fact, Moment, PersonalGraph, Provenance, Relation

LETTERS = "abcdefgh"
CATALOGUE = Catalogue([Item(letter, letter.upper()) for letter in LETTERS])

baskets = st.sets(st.sampled_from(LETTERS)).map(lambda liked: "".join(sorted(liked)))
likes_of_clients = st.lists(baskets, max_size=9)


def asked(liked: Iterable[str], *, relation: Relation = "liked") -> ClientQueries:
    """Ask for something nobody knows, from a graph that likes these items."""
    said = Provenance("own_answer", "conversation/1")
    facts = tuple(
        Fact(relation, item, item.upper(), Moment(0, place), said)
        for place, item in enumerate(liked)
    )
    return ClientQueries("p", False, PersonalGraph("p", facts), ("z",))


def indicator(liked: str) -> NDArray[np.float64]:
    return np.array([float(letter in liked) for letter in LETTERS])
