from math import comb

import pytest

from helpers.people import FILMS, person
from pkgllm.assistant.bubbles import find_bubbles
from pkgllm.assistant.scopes import Scopes
from pkgllm.corpora.catalogue import Catalogue, Item
from pkgllm.graph.personal_graph import Relation

WORLD = Catalogue(
    [
        Item(
            f"{n:02}",
            f"{chr(97 + n // 26)}{chr(97 + n % 26)} x",
            {"topic": ("cat" if n < 8 else "dog",)},
        )
        for n in range(40)
    ]
)


def test_a_bubble_by_hand() -> None:
    liked = ["00", "01", "02", "03", "04", "20"]
    said: dict[str, Relation] = {"05": "disliked", "06": "seen"}
    graph = person(said | dict.fromkeys(liked, "liked"), WORLD)
    (bubble,) = find_bubbles(graph, Scopes(WORLD))
    assert (bubble.scope, bubble.value) == ("topic", "cat")
    assert (bubble.support, bubble.likes, bubble.items) == (5, 6, 8)
    assert bubble.lift == pytest.approx((5 / 6) / (8 / 40))
    by_chance = sum(comb(8, x) * comb(32, 6 - x) for x in (5, 6)) / comb(40, 6)
    # Two topics were looked at; titles, each a franchise of one item, could be no bubble.
    assert bubble.p_value == pytest.approx(2 * by_chance)


def test_what_is_common_in_the_catalogue_is_no_bubble() -> None:
    graph = person(dict.fromkeys(["20", "21", "22", "23", "24", "25"], "liked"), WORLD)
    assert find_bubbles(graph, Scopes(WORLD)) == ()


def test_two_likes_are_no_bubble_and_nothing_is_found_in_nothing() -> None:
    graph = person(dict.fromkeys(["00", "01"], "liked"), WORLD)
    assert find_bubbles(graph, Scopes(WORLD), level=1.0) == ()
    assert find_bubbles(graph, Scopes(WORLD), level=1.0, min_support=2)
    assert find_bubbles(person({}), Scopes(FILMS)) == ()
