from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pkgllm.errors import FederationError
from pkgllm.federation.cohort import sample_cohort

populations = st.lists(st.text(), unique=True, min_size=1, max_size=30)


@given(populations, st.integers(0, 99), st.integers(1, 50), st.data())
def test_a_cohort_is_a_sorted_subset_whatever_the_order(
    clients: list[str], seed: int, round_num: int, data: st.DataObject
) -> None:
    cohort_size = data.draw(st.integers(1, len(clients)))
    shuffled = data.draw(st.permutations(clients))
    cohort = sample_cohort(clients, cohort_size, seed, round_num)
    assert cohort == tuple(sorted(set(cohort)))
    assert len(cohort) == cohort_size
    assert set(cohort) <= set(clients)
    assert sample_cohort(shuffled, cohort_size, seed, round_num) == cohort


def test_every_client_is_drawn_equally_often_and_rounds_differ() -> None:
    clients = [f"p{index}" for index in range(10)]
    cohorts = [sample_cohort(clients, 3, 0, round_num) for round_num in range(1, 1001)]
    counts = Counter(client for cohort in cohorts for client in cohort)
    # 1000 draws with probability .3: mean 300, standard deviation sqrt(1000 * .3 * .7) = 14.5.
    assert all(abs(counts[client] - 300) < 4 * 14.5 for client in clients)
    # 10 choose 3 = 120 cohorts; each is missing after 1000 draws with probability 2e-4.
    assert len(set(cohorts)) > 110
    assert [sample_cohort(clients, 3, 0, r, ("other",)) for r in range(1, 9)] != cohorts[:8]


def test_a_cohort_larger_than_the_population_says_so() -> None:
    with pytest.raises(FederationError, match=r"round 4: cohort_size .* clients, 2, got 3; lower"):
        sample_cohort(["a", "b"], 3, 0, 4)


def test_a_cohort_of_nobody_or_of_twins_is_refused() -> None:
    with pytest.raises(ValueError, match="cohort_size must be at least 1, got 0"):
        sample_cohort(["a"], 0, 0, 1)
    with pytest.raises(ValueError, match="must not hold an id twice"):
        sample_cohort(["a", "a"], 1, 0, 1)
