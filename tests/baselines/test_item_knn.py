import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.spatial.distance import cdist  # type: ignore[import-untyped]  # scipy ships no types

from helpers.liked_graphs import CATALOGUE, LETTERS, asked, baskets, indicator, likes_of_clients
from pkgllm.baselines.item_knn import ItemKnn
from pkgllm.baselines.likes import TrainingLikes
from pkgllm.corpora.catalogue import Catalogue, Item

# As many as there are items, and more, leave nothing out.
ks = st.integers(1, len(LETTERS) + 1)
shrinkages = st.sampled_from([0.0, 0.5, 3.0, 100.0])


def similarity_table(
    likes: TrainingLikes, neighbours: int, shrinkage: float
) -> NDArray[np.float64]:
    """Similarity of each item's nearest, by the formula, one pair at a time."""
    matrix = likes.matrix()
    table = np.zeros((len(LETTERS), len(LETTERS)))
    for i in range(len(LETTERS)):
        for j in range(len(LETTERS)):
            together = sum(row[i] * row[j] for row in matrix)
            if i != j and together:
                root = math.sqrt(matrix[:, i].sum() * matrix[:, j].sum())
                table[i, j] = together / (root + shrinkage)
    for row in table:
        last = sorted(row, reverse=True)[min(neighbours, len(LETTERS)) - 1]
        row[row < last] = 0
    return table


@given(clients=likes_of_clients, liked=baskets, neighbours=ks, shrinkage=shrinkages)
def test_scores_follow_the_formula(
    clients: list[str], liked: str, neighbours: int, shrinkage: float
) -> None:
    likes = TrainingLikes(CATALOGUE, clients)
    scorer = ItemKnn(neighbours=neighbours, shrinkage=shrinkage).fit(likes)
    expected = indicator(liked) @ similarity_table(likes, neighbours, shrinkage)
    assert scorer.scores([asked(liked)])[0] == pytest.approx(expected)


@given(clients=likes_of_clients)
def test_without_shrinkage_a_similarity_is_the_cosine(clients: list[str]) -> None:
    likes = TrainingLikes(CATALOGUE, clients)
    liked = np.flatnonzero(likes.counts)
    assume(len(liked) > 0)
    scorer = ItemKnn(neighbours=len(LETTERS), shrinkage=0.0).fit(likes)
    found = scorer.scores([asked(LETTERS[item]) for item in liked])[:, liked]
    columns = likes.matrix().T[liked]
    cosine = 1 - cdist(columns, columns, "cosine")
    np.fill_diagonal(cosine, 0)
    assert found == pytest.approx(cosine, abs=1e-12)


def test_a_small_case_by_hand() -> None:
    # a is liked by 4; b stands with it 3 times of 3, c once of 1, d once of 4.
    likes = TrainingLikes(CATALOGUE, ["ab", "ab", "abd", "ac", "d", "d", "d"])
    near = ItemKnn(neighbours=3, shrinkage=0.0).fit(likes).scores([asked("a")])[0]
    assert near[:5].tolist() == pytest.approx([0, 3 / math.sqrt(12), 1 / 2, 1 / 4, 0])
    # One of one is no longer as good as it was.
    shrunk = ItemKnn(neighbours=3, shrinkage=2.0).fit(likes).scores([asked("a")])[0]
    assert shrunk[:4].tolist() == pytest.approx([0, 3 / (math.sqrt(12) + 2), 1 / 4, 1 / 6])
    nearest = ItemKnn(neighbours=1, shrinkage=0.0).fit(likes).scores([asked("a"), asked("ad")])
    assert nearest[0, :4].tolist() == pytest.approx([0, 3 / math.sqrt(12), 0, 0])
    # b is nearest to d too: it is liked by fewer than a.
    assert nearest[1, 1] == pytest.approx(3 / math.sqrt(12) + 1 / math.sqrt(12))


def test_equals_at_the_border_are_all_near() -> None:
    likes = TrainingLikes(CATALOGUE, ["abc", "ad"])
    found = ItemKnn(neighbours=1, shrinkage=0.0).fit(likes).scores([asked("a")])[0]
    # All three stand with a once and are liked once.
    assert found[1:4].tolist() == [1 / math.sqrt(2)] * 3


@given(
    clients=likes_of_clients,
    liked=baskets,
    neighbours=ks,
    shrinkage=shrinkages,
    letters=st.permutations(LETTERS),
)
def test_the_order_of_the_catalogue_decides_nothing(
    clients: list[str], liked: str, neighbours: int, shrinkage: float, letters: list[str]
) -> None:
    # The same films with other ids, so that they stand in other columns.
    renamed = str.maketrans(LETTERS, "".join(letters))
    others = [client.translate(renamed) for client in clients]
    first, other = (
        ItemKnn(neighbours=neighbours, shrinkage=shrinkage).fit(TrainingLikes(CATALOGUE, likes))
        for likes in (clients, others)
    )
    moved = [CATALOGUE.index_by_id[letter] for letter in letters]
    found = other.scores([asked(liked.translate(renamed))])[0, moved]
    assert found == pytest.approx(first.scores([asked(liked)])[0])


def test_items_that_the_same_clients_like_tie_exactly() -> None:
    generator = np.random.default_rng(0)
    catalogue = Catalogue([Item(f"{n:03}", f"Film {n}") for n in range(300)])
    drawn = [generator.choice(100, size=12, replace=False) for _ in range(40)]
    # The films n, n + 100 and n + 200 have the same admirers.
    clients = [[f"{n + more:03}" for n in liked for more in (0, 100, 200)] for liked in drawn]
    scorer = ItemKnn(neighbours=20, shrinkage=1.0).fit(TrainingLikes(catalogue, clients))
    for liked in drawn[:10]:
        row = scorer.scores([asked(f"{n:03}" for n in liked[:5])])[0]
        assert np.array_equal(row[100:200], row[200:])
        assert len(np.unique(row)) > 10


def test_only_likes_count_and_nobody_needs_to_have_trained() -> None:
    scorer = ItemKnn(neighbours=3, shrinkage=0.0).fit(TrainingLikes(CATALOGUE, ["ab", "bc"]))
    assert not scorer.scores([asked("ab", relation="disliked"), asked(""), asked("gh")]).any()
    assert scorer.scores([asked("c")])[0, 1] > 0
    nobody = ItemKnn(neighbours=3, shrinkage=0.0).fit(TrainingLikes(CATALOGUE, []))
    assert nobody.scores([asked("ab")]).tolist() == [[0.0] * len(LETTERS)]


@pytest.mark.parametrize(
    ("neighbours", "shrinkage", "message"),
    [
        (0, 0.0, "neighbours must be >= 1, got 0"),
        (5, -0.5, "shrinkage must be >= 0, got -0.5"),
        (5, math.inf, "shrinkage must be finite, got inf"),
        (5, math.nan, "shrinkage must be finite, got nan"),
    ],
)
def test_parameters_out_of_range(neighbours: int, shrinkage: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ItemKnn(neighbours=neighbours, shrinkage=shrinkage)
