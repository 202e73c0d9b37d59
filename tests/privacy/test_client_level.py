import math
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pkgllm.errors import ModelError
from pkgllm.lm.adapter import AdapterState, update_norm
from pkgllm.privacy.client_level import poisson_cohort, privatise_updates
from pkgllm.privacy.clipping import GaussianSettings
from pkgllm.privacy.noise import fixed, secure

SILENT = GaussianSettings(clip_norm=5.0, noise_multiplier=0.0, expected_units=4.0)
BEFORE: AdapterState = {"a": torch.tensor([1.0, 2.0]), "b": torch.tensor([[3.0]])}


def after(x: float, y: float, z: float) -> AdapterState:
    """What a client sends whose update is these three values."""
    return {"a": BEFORE["a"] + torch.tensor([x, y]), "b": BEFORE["b"] + z}


def released(*updates: AdapterState, settings: GaussianSettings = SILENT) -> list[float]:
    found = privatise_updates(BEFORE, updates, settings, secure().generator()).adapter
    return [*(found["a"] - BEFORE["a"]).tolist(), float(found["b"] - BEFORE["b"])]


def test_the_mean_by_hand() -> None:
    # (6, 0, 8) has length 10 and becomes (3, 0, 4); (0, 3, 4) has length 5 and stays. A clip of
    # each tensor by itself would leave (5, 0, 5) of the first. The sum is divided by 4, not by 2.
    assert released(after(6, 0, 8), after(0, 3, 4)) == pytest.approx([0.75, 0.75, 2.0])


def test_who_failed_adds_nothing_and_the_denominator_stays() -> None:
    assert released(after(4, 0, 0)) == pytest.approx([1.0, 0.0, 0.0])
    assert released() == [0.0, 0.0, 0.0]


def test_an_update_of_length_zero_is_no_trouble() -> None:
    assert released(after(0, 0, 0), after(4, 0, 0)) == pytest.approx([1.0, 0.0, 0.0])


@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
def test_an_update_that_is_no_number_adds_nothing(broken: float) -> None:
    assert released(after(broken, 1, 1), after(4, 0, 0)) == pytest.approx([1.0, 0.0, 0.0])


def test_counts_are_those_of_the_updates() -> None:
    updates = (after(6, 0, 8), after(0, 3, 4), after(math.nan, 0, 0), after(0, 0, 1))
    found = privatise_updates(BEFORE, updates, SILENT, secure().generator())
    assert (found.num_updates, found.num_within) == (4, 2)


def test_a_frozen_tensor_gets_neither_update_nor_noise() -> None:
    settings = replace(SILENT, noise_multiplier=3.0)
    found = privatise_updates(
        BEFORE, [after(6, 0, 8)], settings, secure().generator(), trained=["b"]
    ).adapter
    assert torch.equal(found["a"], BEFORE["a"])
    assert not torch.equal(found["b"], BEFORE["b"])
    silent = privatise_updates(
        BEFORE, [after(99, 0, 5)], SILENT, secure().generator(), trained=["b"]
    ).adapter
    # What is not released does not use up the clip norm.
    assert float(silent["b"] - BEFORE["b"]) == pytest.approx(1.25)


def test_what_was_sent_is_left_as_it_was() -> None:
    sent, kept = after(6, 0, 8), after(6, 0, 8)
    found = privatise_updates(BEFORE, [sent], SILENT, secure().generator()).adapter
    found["a"].zero_()
    assert all(torch.equal(sent[key], kept[key]) for key in sent)
    assert BEFORE["a"].tolist() == [1.0, 2.0]


def test_updates_are_read_one_by_one() -> None:
    alive = 0

    def one_by_one() -> Iterator[AdapterState]:
        nonlocal alive
        for value in (1.0, 2.0, 3.0):
            alive += 1
            yield after(value, 0, 0)

    updates = one_by_one()
    privatise_updates(BEFORE, updates, SILENT, secure().generator())
    assert alive == 3
    assert next(updates, None) is None


@given(
    rows=st.lists(st.tuples(*[st.floats(-1e3, 1e3, width=32)] * 3), min_size=1, max_size=5),
    clip_norm=st.floats(0.01, 100),
)
def test_no_client_moves_the_sum_by_more_than_the_clip_norm(
    rows: list[tuple[float, float, float]], clip_norm: float
) -> None:
    settings = GaussianSettings(clip_norm, 0.0, 1.0)
    updates = [after(*row) for row in rows]
    whole = privatise_updates(BEFORE, updates, settings, secure().generator()).adapter
    without = privatise_updates(BEFORE, updates[1:], settings, secure().generator()).adapter
    rounding = 1e-6 * (10 + clip_norm * len(rows))
    assert update_norm(without, whole) <= clip_norm + rounding


@pytest.mark.parametrize("update", [{"a": torch.zeros(2)}, {**BEFORE, "b": torch.zeros(2)}])
def test_a_foreign_update_is_refused(update: AdapterState) -> None:
    with pytest.raises(ModelError, match=r"b must have shape \(1, 1\), got"):
        released(update)


def test_a_cohort_is_drawn_whatever_the_order_of_the_clients() -> None:
    clients = [f"client {number}" for number in range(40)]
    found = poisson_cohort(clients, 0.4, fixed(1).generator())
    assert found == poisson_cohort(clients[::-1], 0.4, fixed(1).generator())
    assert set(found) < set(clients)
    assert len(found) == len(set(found)) > 0
