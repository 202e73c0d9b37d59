from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pkgllm.privacy.mechanisms import (
    Mechanism,
    NeighboringRelation,
    fact_mechanism,
    merge,
    share_mechanism,
)

MECHANISMS = st.builds(
    Mechanism,
    st.sampled_from([0.5, 1.0, 2.0]),
    st.sampled_from([0.0, 0.1, 1.0]),
    st.integers(0, 4),
)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((-1.0, 0.1), "noise_multiplier must be at least 0 and finite, got -1"),
        ((float("inf"), 0.1), "noise_multiplier must be at least 0 and finite, got inf"),
        ((float("nan"), 0.1), "noise_multiplier must be at least 0 and finite, got nan"),
        ((1.0, 1.1), r"sampling_probability must be from 0 to 1, got 1\.1"),
        ((1.0, -0.1), r"sampling_probability must be from 0 to 1, got -0\.1"),
        ((1.0, 0.1, -1), "steps must be at least 0, got -1"),
    ],
)
def test_no_mechanism_has_such_numbers(arguments: tuple[float, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Mechanism(*arguments)  # type: ignore[arg-type]


def test_the_neighbouring_relation_is_always_named() -> None:
    relation = Mechanism(1.0, 0.1).neighboring_relation
    assert relation is NeighboringRelation.ADD_OR_REMOVE_ONE
    assert relation.value == "add_or_remove_one"


def test_sampling_does_not_help_where_who_takes_part_is_known() -> None:
    known = NeighboringRelation.ZERO_OUT_ONE
    Mechanism(1.0, 1.0, neighboring_relation=known)
    with pytest.raises(ValueError, match=r"must be 1 where who takes part is known, got 0\.5"):
        Mechanism(1.0, 0.5, neighboring_relation=known)


def test_a_share_has_its_part_of_the_variance() -> None:
    assert share_mechanism(Mechanism(3.0, 1.0, 7), 9) == Mechanism(1.0, 1.0, 7)
    assert share_mechanism(Mechanism(3.0, 1.0, 7), 1) == Mechanism(3.0, 1.0, 7)
    with pytest.raises(ValueError, match="min_shares must be at least 1, got 0"):
        share_mechanism(Mechanism(3.0, 1.0), 0)


@given(st.lists(MECHANISMS, max_size=8), st.randoms())
def test_a_history_is_the_same_in_any_order_and_in_any_parts(
    mechanisms: list[Mechanism], random: Random
) -> None:
    shuffled = list(mechanisms)
    random.shuffle(shuffled)
    once = merge(mechanisms)
    assert merge(shuffled) == once
    assert merge((*merge(mechanisms[:3]), *merge(mechanisms[3:]))) == once
    assert sum(m.steps for m in once) == sum(
        m.steps for m in mechanisms if m.sampling_probability > 0
    )


def test_a_fact_in_one_group_costs_what_the_group_costs() -> None:
    assert fact_mechanism(Mechanism(1.5, 0.25, 7), 1) == Mechanism(1.5, 0.25, 7)


def test_the_mechanism_fact_mechanism_by_hand() -> None:
    # Not drawn at all: 0.9^3 = 0.729. At worst three clip norms in noise of 1.5.
    found = fact_mechanism(Mechanism(1.5, 0.1, 7), 3)
    assert found.noise_multiplier == 0.5
    assert found.sampling_probability == pytest.approx(0.271, abs=1e-12)
    assert found.steps == 7


def test_a_fact_enters_at_least_one_group() -> None:
    with pytest.raises(ValueError, match="max_groups must be at least 1, got 0"):
        fact_mechanism(Mechanism(1.0, 0.1), 0)
