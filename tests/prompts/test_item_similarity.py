import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pkgllm.corpora.catalogue import Catalogue, Item
from pkgllm.errors import ConfigError
from pkgllm.prompts.item_similarity import AdamicAdar

FACTS: list[dict[str, tuple[str, ...]]] = [
    {"director": ("K",), "genre": ("drama", "war")},
    {"director": ("K",), "genre": ("drama",)},
    {"director": ("C",), "genre": ("drama",), "star": ("M",)},
    {"director": ("L",), "genre": ("war",), "star": ("M",)},
    {},
]
FILMS = Catalogue(Item(str(n), f"Film {n}", facts) for n, facts in enumerate(FACTS))


def test_weights_by_hand() -> None:
    similarity = AdamicAdar(FILMS, ("director", "genre"))
    two, three = 1 / math.log(2), 1 / math.log(3)
    assert similarity.weights(["0"]) == pytest.approx([0, two + three, three, two, 0])
    # Two liked films lead to a third by both of them; what is liked has no weight itself.
    assert similarity.weights(["0", "1"]) == pytest.approx([0, 0, 2 * three, two, 0])
    assert similarity.weights(["4", "no such film"]) == pytest.approx([0] * 5)


@given(st.sets(st.sampled_from("01234")), st.sets(st.sampled_from("01234")), st.integers(0, 6))
def test_the_strongest_are_connected_new_and_ordered(
    liked: set[str], taken: set[str], count: int
) -> None:
    similarity = AdamicAdar(FILMS, ("director", "genre", "star"))
    found = similarity.strongest(sorted(liked), taken, count, np.random.default_rng(0))
    weights = similarity.weights(sorted(liked))
    chosen = [weights[int(item)] for item in found]
    left = [weights[n] for n in range(5) if str(n) not in taken and str(n) not in found]
    assert len(set(found)) == len(found) <= count
    assert not {*liked, *taken} & {*found}
    assert all(chosen)
    assert chosen == sorted(chosen, reverse=True)
    if len(found) < count:
        assert not any(left)
    elif chosen:
        assert max(left, default=0.0) <= chosen[-1]


def test_equal_weights_are_drawn_and_not_taken_by_id() -> None:
    films = Catalogue(Item(f"{n:02}", f"Film {n}", {"genre": ("war",)}) for n in range(20))
    similarity = AdamicAdar(films, ("genre",))
    drawn = {
        similarity.strongest(["00"], ["00"], 1, np.random.default_rng(seed)) for seed in range(20)
    }
    assert len(drawn) > 5


@pytest.mark.parametrize(
    ("films", "end"),
    [(FILMS, "choose from director, genre, star"), (Catalogue([Item("1", "A")]), "facts at all")],
)
def test_a_relation_that_nothing_has_is_refused(films: Catalogue, end: str) -> None:
    with pytest.raises(ConfigError, match=f"has a studio; .*{end}$"):
        AdamicAdar(films, ("studio",))
