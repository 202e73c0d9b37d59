import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chi2  # type: ignore[import-untyped]

from pkgllm.errors import FederationError, ModelError
from pkgllm.lm.adapter import AdapterState, update_norm
from pkgllm.privacy.local_noise import LocalNoise, noise_share, sum_shares
from pkgllm.privacy.noise import fixed, secure

BEFORE: AdapterState = {"a": torch.tensor([1.0, 2.0]), "b": torch.tensor([[3.0]])}
BIG: AdapterState = {"a": torch.zeros(200, 100)}
SETTINGS = LocalNoise(clip_norm=0.5, noise_multiplier=2.0, min_shares=4)
SILENT = LocalNoise(clip_norm=5.0, noise_multiplier=0.0, min_shares=2)


def after(x: float, y: float, z: float) -> AdapterState:
    """What a client has trained whose update is these three values."""
    return {"a": BEFORE["a"] + torch.tensor([x, y]), "b": BEFORE["b"] + z}


def sent(update: AdapterState, settings: LocalNoise = SILENT) -> list[float]:
    found = noise_share(BEFORE, update, settings, secure().generator())
    return [*(found["a"] - BEFORE["a"]).tolist(), float(found["b"] - BEFORE["b"])]


def shares(count: int, settings: LocalNoise = SETTINGS) -> Iterator[AdapterState]:
    return (noise_share(BIG, BIG, settings, secure().generator()) for _ in range(count))


def fits(adapter: AdapterState, std: float) -> bool:
    """Whether values are as far from 0 as those of this standard deviation, at 1e-6."""
    values = adapter["a"].double().numpy().ravel()
    low, high = chi2.ppf([5e-7, 1 - 5e-7], len(values))
    return bool(low <= np.square(values).sum() / std**2 <= high)


@pytest.mark.parametrize(("count", "factor"), [(4, 1.0), (9, 1.5)])
def test_shares_make_up_at_least_the_noise_of_a_trusted_server(count: int, factor: float) -> None:
    found = sum_shares(BIG, shares(count), expected_cohort=8.0, min_shares=4)
    std = factor * SETTINGS.noise_multiplier * SETTINGS.clip_norm / 8
    assert fits(found, std)
    assert not fits(found, 0.95 * std)
    assert not fits(found, 1.05 * std)


def test_a_single_share_has_its_part_of_the_variance() -> None:
    (share,) = shares(1)
    assert fits(share, 2.0 * 0.5 / math.sqrt(4))
    assert not fits(share, 2.0 * 0.5)
    (whole,) = shares(1, replace(SETTINGS, min_shares=1))
    assert fits(whole, 2.0 * 0.5)


def test_too_few_shares_are_not_released() -> None:
    with pytest.raises(FederationError, match="at least 4 shares, got 3"):
        sum_shares(BIG, shares(3), expected_cohort=8.0, min_shares=4)


def test_a_share_by_hand() -> None:
    # (6, 0, 8) has length 10 and becomes (3, 0, 4); (0, 3, 4) has length 5 and stays.
    assert sent(after(6, 0, 8)) == pytest.approx([3.0, 0.0, 4.0])
    assert sent(after(0, 3, 4)) == pytest.approx([0.0, 3.0, 4.0])
    assert sent(after(0, 0, 0)) == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
def test_an_update_that_is_no_number_is_sent_as_noise_alone(broken: float) -> None:
    assert sent(after(broken, 1, 1)) == [0.0, 0.0, 0.0]
    assert all(map(math.isfinite, sent(after(broken, 1, 1), SETTINGS)))


@given(
    row=st.tuples(*[st.floats(-1e3, 1e3, width=32)] * 3),
    clip_norm=st.floats(0.01, 100),
)
def test_no_share_is_moved_by_more_than_the_clip_norm(
    row: tuple[float, float, float], clip_norm: float
) -> None:
    settings = LocalNoise(clip_norm, 1.0, 3)
    there, zeroed = (
        noise_share(BEFORE, update, settings, fixed(0).generator("share"))
        for update in (after(*row), BEFORE)
    )
    assert update_norm(zeroed, there) <= clip_norm + 1e-5 * (10 + clip_norm)


def test_a_frozen_tensor_is_sent_as_it_came() -> None:
    share = noise_share(BEFORE, after(6, 0, 8), SETTINGS, secure().generator(), trained=["b"])
    assert torch.equal(share["a"], BEFORE["a"])
    assert not torch.equal(share["b"], BEFORE["b"])
    # Nor is it summed, should somebody send it changed.
    total = sum_shares(BEFORE, [after(9, 9, 1)], expected_cohort=1.0, min_shares=1, trained=["b"])
    assert torch.equal(total["a"], BEFORE["a"])
    assert float(total["b"] - BEFORE["b"]) == 1.0


def test_shares_of_two_clients_have_nothing_in_common() -> None:
    one, other = shares(2)
    both = torch.stack([one["a"].reshape(-1), other["a"].reshape(-1)])
    assert abs(float(torch.corrcoef(both)[0, 1])) < 5 / math.sqrt(20_000)


def test_who_came_late_adds_nothing_and_the_denominator_stays() -> None:
    found = sum_shares(BEFORE, [after(4, 0, 0)], expected_cohort=4.0, min_shares=1)
    assert (found["a"] - BEFORE["a"]).tolist() == [1.0, 0.0]


@pytest.mark.parametrize("update", [{"a": torch.zeros(2)}, {**BEFORE, "b": torch.zeros(2)}])
def test_a_foreign_update_is_neither_sent_nor_summed(update: AdapterState) -> None:
    with pytest.raises(ModelError, match=r"b must have shape \(1, 1\), got"):
        sent(update)
    with pytest.raises(ModelError, match=r"b must have shape \(1, 1\), got"):
        sum_shares(BEFORE, [update], expected_cohort=1.0, min_shares=1)


@pytest.mark.parametrize(
    ("name", "value"), [("min_shares", 0), ("clip_norm", 0.0), ("noise_multiplier", -1.0)]
)
def test_settings_out_of_range_are_refused(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{name} must be"):
        replace(SETTINGS, **{name: value})  # type: ignore[arg-type]
