import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import ElasticNet

from helpers.liked_graphs import CATALOGUE, LETTERS, asked, likes_of_clients
from pkgllm.baselines.likes import TrainingLikes
from pkgllm.baselines.slim import Slim

penalties = st.sampled_from([0.1, 0.5, 1.0, 3.0])


@settings(max_examples=20)
@given(clients=likes_of_clients, l1=penalties, l2=penalties)
def test_weights_are_those_of_an_elastic_net(clients: list[str], l1: float, l2: float) -> None:
    likes = TrainingLikes(CATALOGUE, clients)
    scorer = Slim(l1=l1, l2=l2).fit(likes)
    # A client who likes one item is scored by that item's row of weights.
    weights = scorer.scores([asked(letter) for letter in LETTERS])
    assert (weights >= 0).all()
    assert not weights.diagonal().any()
    matrix = likes.matrix()
    for column in range(len(LETTERS)):
        if not matrix[:, column].any():
            assert not weights[:, column].any()
            continue
        others = matrix.copy()
        others[:, column] = 0
        # Its loss is divided by the number of clients, and so are its penalties.
        net = ElasticNet(
            alpha=(l1 + l2) / len(matrix),
            l1_ratio=l1 / (l1 + l2),
            positive=True,
            fit_intercept=False,
            tol=1e-12,
            max_iter=100_000,
        ).fit(others, matrix[:, column])
        assert weights[:, column] == pytest.approx(net.coef_, abs=1e-6)


def test_a_hand_computed_case() -> None:
    # b is liked by two of the clients that like a: w = (2 - 0.5) / (3 + 1).
    scorer = Slim(l1=0.5, l2=1.0).fit(TrainingLikes(CATALOGUE, ["ab", "ab", "a"]))
    assert scorer.scores([asked("a")])[0, 1] == 0.375


@settings(max_examples=30)
@given(clients=likes_of_clients, liked=st.sets(st.sampled_from(LETTERS[:4])))
def test_items_with_the_same_clients_tie_exactly(clients: list[str], liked: set[str]) -> None:
    # g and h are liked wherever e is, so all three are alike for whoever likes none of them.
    alike = [client.replace("g", "").replace("h", "") for client in clients]
    alike = [client + "gh" * ("e" in client) for client in alike]
    scores = Slim(l1=0.1, l2=0.5).fit(TrainingLikes(CATALOGUE, alike)).scores([asked(liked)])[0]
    assert len({float(scores[LETTERS.index(letter)]) for letter in "egh"}) == 1


def test_scores_of_several_liked_items_add_up() -> None:
    scorer = Slim(l1=0.1, l2=1.0).fit(TrainingLikes(CATALOGUE, ["abc", "ab", "bc", "ad"]))
    both, first, second = scorer.scores([asked("ad"), asked("a"), asked("d")])
    assert np.array_equal(both, first + second)


@pytest.mark.parametrize(("l1", "l2"), [(-1.0, 1.0), (1.0, 0.0), (np.nan, 1.0), (1.0, np.inf)])
def test_penalties_out_of_range(l1: float, l2: float) -> None:
    with pytest.raises(ValueError, match="must be"):
        Slim(l1=l1, l2=l2)
