import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pkgllm.baselines.genre_popularity import GenrePopularity
from pkgllm.baselines.likes import TrainingLikes
from pkgllm.baselines.popularity import Popularity
from pkgllm.corpora.catalogue import Catalogue, Item
from pkgllm.evaluation.scorer import ClientQueries
from pkgllm.graph.personal_graph import Fact, Moment, PersonalGraph, Provenance

GENRES = (("crime", "drama"), ("drama",), ("crime",), ("comedy",), (), ("comedy", "crime"))
FILMS = Catalogue(
    Item(str(n), f"Film {n}", {"genre": found} if found else {}) for n, found in enumerate(GENRES)
)
SAID = Provenance("own_answer", "conversation/1")

likes = st.lists(st.sets(st.sampled_from("012345")), max_size=8)


def asked(*liked: str, disliked: tuple[str, ...] = ()) -> ClientQueries:
    facts = [
        Fact(relation, item, f"Film {item}", Moment(0, int(item)), SAID)  # type: ignore[arg-type]
        for relation, items in (("liked", liked), ("disliked", disliked))
        for item in items
    ]
    return ClientQueries("p", False, PersonalGraph("p", tuple(facts)), ("5",))


def test_scores_by_hand() -> None:
    # Item 0 is liked by three clients, 2 by two, 1 and 3 by one; 4 and 5 by none.
    model = GenrePopularity().fit(TrainingLikes(FILMS, [["0", "2"], ["0", "1"], ["0", "2", "3"]]))
    # Liked are crime and drama, and drama: crime weighs a half, drama one, comedy nothing.
    (found,) = model.scores([asked("0", "1", disliked=("3",))])
    assert found == pytest.approx([3.0, 1.0, 1.0, -3.0, -4.0, 0.0])


@given(likes)
def test_who_likes_nothing_gets_the_order_of_popularity(trained: list[set[str]]) -> None:
    rows = TrainingLikes(FILMS, trained)
    query = asked(disliked=("2",))
    own, popular = (
        m.scores([query])[0] for m in (GenrePopularity().fit(rows), Popularity().fit(rows))
    )
    assert (own - own.max()).tolist() == (popular - popular.max()).tolist()


@given(likes, st.sets(st.sampled_from("012345"), min_size=1))
def test_items_of_a_liked_genre_come_before_all_others(
    trained: list[set[str]], liked: set[str]
) -> None:
    genres = {genre for item in liked for genre in GENRES[int(item)]}
    (found,) = GenrePopularity().fit(TrainingLikes(FILMS, trained)).scores([asked(*sorted(liked))])
    inside = np.array([bool(genres & set(of_item)) for of_item in GENRES])
    if inside.any() and not inside.all():
        assert found[inside].min() > found[~inside].max()
