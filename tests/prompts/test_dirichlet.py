import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.labelled_groups import Labels, assert_cut_from, examples, label_lists, own_groups
from pkgllm.prompts.partition.dirichlet import counts_for_share, draw_share, skewed
from pkgllm.prompts.partition.partition import count_labels
from pkgllm.randomness import stream

counts = st.integers(0, 40)
shares = st.one_of(st.floats(0, 1), st.sampled_from([0.0, 0.25, 1 / 3, 0.5, 2 / 3, 1.0]))


@given(counts, counts, shares)
def test_no_other_cut_of_one_label_comes_nearer(
    desirable: int, undesirable: int, share: float
) -> None:
    kept = counts_for_share(desirable, undesirable, share)
    if 0 in (desirable, undesirable):
        assert kept == (desirable, undesirable)
        return
    possible = [(desirable, n) for n in range(undesirable + 1)]
    possible += [(n, undesirable) for n in range(desirable + 1)]

    def distance(pair: tuple[int, int]) -> float:
        return abs(pair[1] / sum(pair) - share)

    assert kept in possible
    nearest = min(map(distance, possible))
    assert distance(kept) <= nearest + 1e-12
    # Of all that are as near, none is larger.
    assert sum(kept) == max(
        sum(pair) for pair in possible if distance(pair) <= distance(kept) + 1e-12
    )


@pytest.mark.parametrize(
    ("share", "kept"),
    [
        # 8 likes and 12 dislikes: u / (8 + u) = 0.2 at u = 2; 12 / (d + 12) = 0.8 at d = 3.
        (0.2, (8, 2)),
        (0.8, (3, 12)),
        (0.6, (8, 12)),
        (0.0, (8, 0)),
        (1.0, (0, 12)),
    ],
)
def test_counts_by_hand(share: float, kept: tuple[int, int]) -> None:
    assert counts_for_share(8, 12, share) == kept


def test_the_larger_of_two_equally_near_counts_is_kept() -> None:
    # A quarter lies half-way between no dislike and one beside one like.
    assert counts_for_share(1, 3, 0.25) == (1, 1)
    assert counts_for_share(3, 1, 0.75) == (1, 1)


@given(label_lists, shares, st.integers(0, 2**32))
def test_a_client_is_cut_to_its_counts(labels: Labels, share: float, seed: int) -> None:
    whole = own_groups("p1", labels)
    groups = skewed(whole, share, stream(seed, "skew"))
    assert groups == skewed(whole, share, stream(seed, "skew"))
    assert_cut_from(groups, whole)
    has, left = count_labels(whole), count_labels(groups)
    assert (left.desirable, left.undesirable) == counts_for_share(
        has.desirable, has.undesirable, share
    )
    # Somebody who had examples is never left without.
    assert groups


def test_every_example_is_as_likely_to_stay() -> None:
    whole = own_groups("p1", [[True, False], [False, False], [True, False]])
    kept = np.zeros(6)
    order = list(examples(whole))
    for seed in range(600):
        for example in examples(skewed(whole, 1 / 3, stream(seed, "skew"))):
            kept[order.index(example)] += 1
    # Both likes always, and one dislike of four: 150 times each, three deviations are 32.
    assert kept[[0, 4]].tolist() == [600, 600]
    assert kept[[1, 2, 3, 5]].sum() == 600
    assert (abs(kept[[1, 2, 3, 5]] - 150) < 4 * np.sqrt(600 * 3 / 16)).all()


def drawn(concentration: float) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return np.array(
        [
            draw_share(0.6, concentration=concentration, generator=stream(0, "share", number))
            for number in range(4000)
        ]
    )


@pytest.mark.parametrize("concentration", [0.5, 1.0, 10.0, 1000.0])
def test_shares_have_the_mean_and_variance_of_the_formula(concentration: float) -> None:
    shares = drawn(concentration)
    variance = 0.6 * 0.4 / (concentration + 1)
    assert abs(shares.mean() - 0.6) < 4 * np.sqrt(variance / 4000)
    # The fourth moment of a beta distribution is at most that of its two ends.
    assert shares.var() == pytest.approx(variance, rel=0.12)


def test_a_large_concentration_makes_clients_alike_and_a_small_one_gives_them_one_label() -> None:
    assert abs(drawn(1e6) - 0.6).max() < 0.005
    extreme = drawn(1e-3)
    assert ((extreme < 1e-3) | (extreme > 1 - 1e-3)).mean() > 0.98
    # As many as the mean says are at the end of the undesirable ones.
    assert abs((extreme > 0.5).mean() - 0.6) < 0.04
    assert np.isfinite(extreme).all()
