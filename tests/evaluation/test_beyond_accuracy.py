from collections.abc import Mapping, Sequence
from itertools import combinations
from random import Random

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.spatial.distance import cosine  # type: ignore[import-untyped]  # scipy ships no types
from scipy.stats import entropy  # type: ignore[import-untyped]  # scipy ships no types

from pkgllm.corpora.catalogue import Catalogue, Item
from pkgllm.evaluation.beyond_accuracy import (
    ListMeasures,
    Lists,
    genre_vectors,
    gini,
    intra_list_diversity,
    long_tail,
    popularity_lift,
    self_information,
)

GENRES: Mapping[str, tuple[str, ...]] = {
    "a": ("Drama",),
    "b": ("Drama", "War"),
    "c": ("Comedy",),
    "d": (),
    "e": ("Comedy", "Comedy"),
}
CATALOGUE = Catalogue(
    [Item(id, id.upper(), {"genre": genres} if genres else {}) for id, genres in GENRES.items()]
)
# Columns           a  b  c  d  e
LIKES = np.array([6.0, 3, 1, 1, 0])

counts = st.lists(st.integers(0, 30), min_size=1, max_size=40).map(
    lambda found: np.array(found, dtype=float)
)
some_lists = st.lists(st.lists(st.sampled_from("abcde"), unique=True), min_size=1, max_size=8)


def test_lists_done_by_hand() -> None:
    found = ListMeasures([["a"], ["c", "zz"], ["b"]], CATALOGUE, LIKES).of(
        [["a", "b"], ["c", "b", "d"], []]
    )
    assert found.coverage == 4 / 5
    # 11 likes: a and b hold 9, at least 8.8, so c, d and e are the tail.
    assert found.tail_coverage == 2 / 3
    assert found.tail_share == pytest.approx((0 + 2 / 3 + 0) / 3)
    # Smoothed counts are 7, 4, 2, 2 and 1 of 16.
    bits = [-np.log2(count / 16) for count in (7, 4, 2, 2, 1)]
    assert found.novelty == pytest.approx(
        ((bits[0] + bits[1]) / 2 + (bits[2] + bits[1] + bits[3]) / 3 + 0) / 3
    )
    # a and b: one of one and two genres in common; c and b: none; d has no genre, so no pair.
    assert found.diversity == pytest.approx(((1 - 1 / np.sqrt(2)) + 1 + 0) / 3)
    # In rising order e 0, a 1, c 1, d 1, b 2: (-4*0 - 2*1 + 0*1 + 2*1 + 4*2) / (5 * 5).
    assert found.exposure_gini == pytest.approx(8 / 25)
    # The third client has no list; what the catalogue lacks is no part of the second's profile.
    in_lists, in_profiles = (6 + 3) / 2 + (1 + 3 + 1) / 3, 6 + 1
    assert found.popularity_lift == pytest.approx((in_lists - in_profiles) / in_profiles)


def test_an_empty_list_lowers_what_is_a_mean_over_clients() -> None:
    whole = ListMeasures([["b"]], CATALOGUE, LIKES).of([["a", "c"]])
    half = ListMeasures([["b"], ["b"]], CATALOGUE, LIKES).of([["a", "c"], []])
    for measure in ("tail_share", "novelty", "diversity"):
        assert getattr(half, measure) == getattr(whole, measure) / 2 > 0
    for measure in ("coverage", "tail_coverage", "exposure_gini", "popularity_lift"):
        assert getattr(half, measure) == getattr(whole, measure)


def test_empty_lists_alone_cover_nothing_and_have_no_exposure() -> None:
    found = ListMeasures([["a"], []], CATALOGUE, LIKES).of([[], []])
    assert (found.coverage, found.tail_coverage, found.tail_share) == (0, 0, 0)
    assert (found.novelty, found.diversity) == (0, 0)
    assert (found.exposure_gini, found.popularity_lift) == (None, None)


def test_what_cannot_be_told_without_likes_or_genres_is_none() -> None:
    found = ListMeasures([["a"]], CATALOGUE, None).of([["a", "c"]])
    assert (found.coverage, found.diversity, found.exposure_gini) == (2 / 5, 1, 3 / 5)
    assert found.tail_coverage is found.tail_share is found.novelty is None
    assert found.popularity_lift is None
    bare = Catalogue([Item("a", "A"), Item("b", "B")])
    assert ListMeasures([[]], bare, None).of([["a", "b"]]).diversity is None
    # A profile whose items nobody liked in training has nothing to be lifted from.
    assert ListMeasures([["e"]], CATALOGUE, LIKES).of([["a"]]).popularity_lift is None


@pytest.mark.parametrize("likes", [np.ones(4), np.array([1.0, 1, 1, 1, -1]), np.ones((5, 1))])
def test_likes_that_do_not_fit_the_catalogue_are_refused(likes: NDArray[np.float64]) -> None:
    with pytest.raises(ValueError, match="training likes must be 5 counts of 0 or more"):
        ListMeasures([[]], CATALOGUE, likes)


def test_a_list_for_every_client_is_asked_for() -> None:
    with pytest.raises(ValueError, match="a list for each of 2 clients, got 1"):
        ListMeasures([[], []], CATALOGUE, LIKES).of([["a"]])


@given(counts)
def test_the_head_is_the_smallest_one_that_holds_four_fifths(likes: NDArray[np.float64]) -> None:
    tail = long_tail(likes)
    total, head = likes.sum(), likes[~tail]
    assert 5 * head.sum() >= 4 * total
    if len(head):
        # Without its least liked item it would not hold them.
        assert 5 * (head.sum() - head.min()) < 4 * total
        assert head.min() >= likes[tail].max(initial=0)
    else:
        assert total == 0
    # Of equals at the border the earlier columns are the head.
    border = likes == head.min(initial=np.inf)
    assert (np.diff(tail[border].astype(int)) >= 0).all()


def test_four_fifths_exactly_is_enough() -> None:
    for total in range(5, 2000, 5):
        likes = np.array([total // 5 * 4, total // 5], dtype=float)
        assert long_tail(likes).tolist() == [False, True]


@given(counts)
def test_self_information_is_that_of_a_distribution(likes: NDArray[np.float64]) -> None:
    bits = self_information(likes)
    assert (2**-bits).sum() == pytest.approx(1)
    assert (2**-bits * bits).sum() == pytest.approx(entropy(likes + 1, base=2), abs=1e-9)
    # Fewer likes, more bits; none at all is finite.
    assert (np.diff(bits[np.argsort(likes, kind="stable")]) <= 1e-12).all()
    assert np.isfinite(bits).all()


@given(counts)
def test_gini_is_half_the_relative_mean_difference(exposure: NDArray[np.float64]) -> None:
    assume(exposure.any())
    found = gini(exposure)
    differences = np.abs(exposure[:, None] - exposure[None, :]).mean()
    assert found == pytest.approx(differences / (2 * exposure.mean()), abs=1e-12)
    assert gini(3 * exposure) == pytest.approx(found)


@given(st.integers(1, 500))
def test_gini_of_all_to_one_is_all_but_a_share(num_items: int) -> None:
    assert gini(np.eye(1, num_items)[0]) == pytest.approx(1 - 1 / num_items)
    assert gini(np.full(num_items, 2.0)) == pytest.approx(0)


@given(some_lists)
def test_diversity_is_the_mean_over_pairs_one_by_one(lists: Sequence[Sequence[str]]) -> None:
    names = sorted({genre for genres in GENRES.values() for genre in genres})
    hot = {id: np.array([name in genres for name in names], float) for id, genres in GENRES.items()}
    expected = [
        np.mean(pairs) if pairs else 0.0
        for pairs in (
            [cosine(hot[a], hot[b]) for a, b in combinations([i for i in items if GENRES[i]], 2)]
            for items in lists
        )
    ]
    found = intra_list_diversity(Lists.of(lists, CATALOGUE), genre_vectors(CATALOGUE))
    assert found is not None
    np.testing.assert_allclose(found, expected, atol=1e-12)
    assert (found >= 0).all()


@pytest.mark.slow
@given(some_lists, st.randoms(use_true_random=False))
def test_neither_places_nor_order_of_clients_matter(
    lists: Sequence[Sequence[str]], random: Random
) -> None:
    profiles = [["a", "b"]] * len(lists)
    measures = ListMeasures(profiles, CATALOGUE, LIKES)
    found = measures.of(lists)
    mixed = [random.sample(list(items), len(items)) for items in random.sample(lists, len(lists))]
    again = measures.of(mixed)
    for field in found.__dataclass_fields__:
        assert getattr(again, field) == pytest.approx(getattr(found, field), abs=1e-12)
    assert 0 <= found.coverage <= 1
    assert found.tail_share is not None
    assert 0 <= found.tail_share <= 1
    assert found.exposure_gini is None or 0 <= found.exposure_gini < 1


@given(some_lists.filter(any))
def test_lists_like_their_profiles_lift_nothing_and_no_scale_matters(
    lists: Sequence[Sequence[str]],
) -> None:
    listed = Lists.of(lists, CATALOGUE)
    likes = LIKES + 1
    assert popularity_lift(listed, listed, likes) == 0
    first = Lists.of([["a"]] * len(lists), CATALOGUE)
    lift = popularity_lift(listed, first, likes)
    assert lift is not None
    # Nothing is more liked than a.
    assert -1 < lift <= 0
    assert popularity_lift(listed, first, 7 * likes) == pytest.approx(lift)
