import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from helpers.liked_graphs import CATALOGUE, LETTERS, asked, baskets, indicator, likes_of_clients
from pkgllm.baselines.ease import Ease
from pkgllm.baselines.likes import TrainingLikes
from pkgllm.corpora.catalogue import Catalogue, Item

l2s = st.sampled_from([0.01, 0.5, 1.0, 20.0, 1e4])


def by_equation_8(matrix: NDArray[np.float64], l2: float) -> NDArray[np.float64]:
    """The weights as the paper writes them, through the matrix of items."""
    inverse = np.linalg.inv(matrix.T @ matrix + l2 * np.eye(matrix.shape[1]))
    weights = -inverse / np.diag(inverse)
    np.fill_diagonal(weights, 0)
    return weights


def by_regressions(matrix: NDArray[np.float64], l2: float) -> NDArray[np.float64]:
    """What the paper minimises: each item from all others, by ridge regression."""
    num_items = matrix.shape[1]
    weights = np.zeros((num_items, num_items))
    for item in range(num_items):
        others = np.arange(num_items) != item
        features = matrix[:, others]
        gram = features.T @ features + l2 * np.eye(num_items - 1)
        weights[others, item] = np.linalg.solve(gram, features.T @ matrix[:, item])
    return weights


@given(clients=likes_of_clients, liked=baskets, l2=l2s)
def test_scores_are_those_of_the_direct_formula(clients: list[str], liked: str, l2: float) -> None:
    likes = TrainingLikes(CATALOGUE, clients)
    found = Ease(l2=l2).fit(likes).scores([asked(liked)])[0]
    expected = indicator(liked) @ by_equation_8(likes.matrix(), l2)
    assert found == pytest.approx(expected, abs=1e-9)


@given(clients=likes_of_clients, liked=baskets, l2=l2s)
def test_scores_solve_the_regressions(clients: list[str], liked: str, l2: float) -> None:
    likes = TrainingLikes(CATALOGUE, clients)
    found = Ease(l2=l2).fit(likes).scores([asked(liked)])[0]
    expected = indicator(liked) @ by_regressions(likes.matrix(), l2)
    assert found == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(("num_clients", "num_items"), [(5, 200), (60, 150), (90, 40)])
def test_larger_random_likes(num_clients: int, num_items: int) -> None:
    generator = np.random.default_rng(num_clients)
    catalogue = Catalogue([Item(f"{n:04}", f"Film {n}") for n in range(num_items)])
    drawn = generator.random((num_clients, num_items)) < 0.1
    ids = [item.id for item in catalogue]
    likes = TrainingLikes(catalogue, [[ids[n] for n in np.flatnonzero(row)] for row in drawn])
    visible = np.flatnonzero(generator.random(num_items) < 0.1)
    query = asked([ids[n] for n in visible])
    for l2 in (0.1, 30.0, 3000.0):
        expected = by_equation_8(drawn.astype(float), l2)[visible].sum(axis=0)
        found = Ease(l2=l2).fit(likes).scores([query])[0]
        assert found == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_a_small_case_by_hand() -> None:
    # Two clients like a and b. From a alone, b is predicted by 2 / (2 + l2).
    scorer = Ease(l2=2.0).fit(TrainingLikes(CATALOGUE, ["ab", "ab"]))
    scores = scorer.scores([asked("a"), asked("ab"), asked("")])
    assert scores[:, :2].tolist() == [
        pytest.approx([0, 1 / 2]),
        pytest.approx([1 / 2, 1 / 2]),
        [0, 0],
    ]


def test_items_that_the_same_clients_like_tie_exactly() -> None:
    # Matrix products may round the last columns of a matrix otherwise than the rest, so equals
    # stand there too.
    generator = np.random.default_rng(0)
    catalogue = Catalogue([Item(f"{n:03}", f"Film {n}") for n in range(403)])
    drawn = [100 + generator.choice(101, size=12, replace=False) for _ in range(40)]
    # The films n, n + 101 and n + 202 have the same admirers; those before 100 have none.
    clients = [[f"{n + more:03}" for n in liked for more in (0, 101, 202)] for liked in drawn]
    scorer = Ease(l2=3.0).fit(TrainingLikes(catalogue, clients))
    for liked in drawn[:10]:
        row = scorer.scores([asked(f"{n:03}" for n in liked[:5])])[0]
        assert np.array_equal(row[201:302], row[302:])
        assert not row[:100].any()
        assert len(np.unique(row)) > 50


def test_no_matrix_of_items_is_made() -> None:
    num_items = 4000
    catalogue = Catalogue([Item(f"{n:04}", f"Film {n}") for n in range(num_items)])
    generator = np.random.default_rng(0)
    clients = [
        [f"{n:04}" for n in generator.choice(num_items, size=50, replace=False)] for _ in range(20)
    ]
    likes = TrainingLikes(catalogue, clients)
    tracemalloc.start()
    Ease(l2=1.0).fit(likes).scores([asked(clients[0])])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * num_items**2 / 10


def test_only_likes_count_and_nobody_needs_to_have_trained() -> None:
    scorer = Ease(l2=1.0).fit(TrainingLikes(CATALOGUE, ["ab", "bc", "abc"]))
    assert not scorer.scores([asked("ab", relation="disliked"), asked("")]).any()
    assert scorer.scores([asked("a")])[0, 1] > 0
    nobody = Ease(l2=1.0).fit(TrainingLikes(CATALOGUE, []))
    assert nobody.scores([asked("ab")]).tolist() == [[0.0] * len(LETTERS)]
    assert nobody.scores([]).shape == (0, len(LETTERS))


@pytest.mark.parametrize("l2", [0.0, -1.0, math.inf, math.nan])
def test_l2_must_be_positive(l2: float) -> None:
    with pytest.raises(ValueError, match=f"l2 must be .*, got {l2}"):
        Ease(l2=l2)
