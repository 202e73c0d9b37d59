"""The private step against its definition and against Opacus' optimiser on the same gradients."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from opacus.optimizers import DPOptimizer
from scipy.stats import chi2  # type: ignore[import-untyped]  # scipy ships no types
from torch import Tensor

from pkgllm.privacy.clipping import GaussianSettings
from pkgllm.privacy.example_level import private_step_gradient
from pkgllm.privacy.noise import secure

NUM_VALUES = 20_000


def gradients(num_examples: int, num_values: int, seed: int = 0) -> Tensor:
    """Of very different lengths, one of them 0."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(num_examples, num_values, generator=generator)
    rows *= torch.logspace(-3, 2, num_examples)[:, None]
    rows[0] = 0
    return rows


def ours(rows: Tensor, settings: GaussianSettings) -> Tensor:
    return private_step_gradient(
        torch.split(rows, 3), settings, secure().generator(), num_values=rows.shape[1]
    )


def of_opacus(rows: Tensor, settings: GaussianSettings) -> Tensor:
    parameter = torch.nn.Parameter(torch.zeros(rows.shape[1]))
    optimizer = DPOptimizer(
        torch.optim.SGD([parameter], lr=1.0),
        noise_multiplier=settings.noise_multiplier,
        max_grad_norm=settings.clip_norm,
        expected_batch_size=int(settings.expected_units),
        generator=torch.Generator().manual_seed(1),
    )
    vars(parameter)["grad_sample"] = rows.clone()
    assert optimizer.pre_step()
    assert parameter.grad is not None
    return parameter.grad


@pytest.mark.parametrize("num_examples", [1, 7, 40])
def test_without_noise_the_gradient_is_that_of_opacus(num_examples: int) -> None:
    rows = gradients(num_examples, 300)
    settings = GaussianSettings(clip_norm=0.7, noise_multiplier=0.0, expected_units=12)
    expected = of_opacus(rows, settings)
    assert (ours(rows, settings) - expected).abs().max() <= 1e-5 * expected.abs().max()


def scale_is(values: Tensor, std: float) -> bool:
    """Two-sided test of a standard deviation, wrong once in 100 000."""
    low, high = chi2.ppf([5e-6, 1 - 5e-6], len(values))
    return bool(low <= float((values.double() / std).square().sum()) <= high)


@pytest.mark.parametrize("num_examples", [0, 1, 30])
@pytest.mark.parametrize("mechanism", [ours, of_opacus])
def test_the_noise_has_the_promised_scale_and_no_other(
    num_examples: int, mechanism: Callable[[Tensor, GaussianSettings], Tensor]
) -> None:
    settings = GaussianSettings(clip_norm=0.7, noise_multiplier=1.3, expected_units=12)
    rows = torch.zeros(num_examples, NUM_VALUES)
    rows[:, 0] = 50.0
    noise = mechanism(rows, settings)[1:]
    assert scale_is(noise, 1.3 * 0.7 / 12)
    assert not scale_is(noise, 1.3 * 0.7 / 12 * 2 / 3)
    assert not scale_is(noise, 1.3 * 0.7 / 12 * 3 / 2)


@given(seed=st.integers(0, 1000), clip_norm=st.floats(1e-3, 1e3), size=st.integers(1, 9))
def test_no_example_moves_the_sum_by_more_than_the_clip_norm(
    seed: int, clip_norm: float, size: int
) -> None:
    rows = gradients(size + 1, 17, seed)[1:]
    settings = GaussianSettings(clip_norm=clip_norm, noise_multiplier=0.0, expected_units=1.0)
    with_it, without = ours(rows, settings), ours(rows[:-1], settings)
    rounding = 1e-5 * clip_norm * size
    assert float((with_it - without).norm()) <= clip_norm + rounding


def test_a_gradient_within_the_clip_norm_stays_as_it_is() -> None:
    settings = GaussianSettings(clip_norm=5.0, noise_multiplier=0.0, expected_units=1.0)
    assert ours(torch.tensor([[3.0, -4.0]]), settings).tolist() == [3.0, -4.0]


@pytest.mark.parametrize("broken", [math.inf, -math.inf, math.nan])
def test_a_broken_gradient_counts_nothing_and_hurts_nobody(broken: float) -> None:
    settings = GaussianSettings(clip_norm=1.0, noise_multiplier=0.0, expected_units=2.0)
    rows = torch.tensor([[0.5, 0.5], [broken, 1.0], [0.1, 0.0]])
    assert torch.equal(ours(rows, settings), ours(rows[[0, 2]], settings))


def test_a_part_is_left_as_it_was() -> None:
    settings = GaussianSettings(clip_norm=1.0, noise_multiplier=1.0, expected_units=2.0)
    rows = gradients(5, 4)
    kept = rows.clone()
    ours(rows, settings)
    assert torch.equal(rows, kept)


def test_a_part_may_be_overwritten_by_the_next_one() -> None:
    settings = GaussianSettings(clip_norm=1.0, noise_multiplier=0.0, expected_units=2.0)
    rows = gradients(6, 4)
    buffer = torch.zeros(2, 4)
    parts = (buffer.copy_(rows[start : start + 2]) for start in (0, 2, 4))
    found = private_step_gradient(parts, settings, np.random.default_rng(), num_values=4)
    assert torch.allclose(found, ours(rows, settings), rtol=1e-6)


def test_another_shape_is_refused() -> None:
    settings = GaussianSettings(clip_norm=1.0, noise_multiplier=0.0, expected_units=2.0)
    with pytest.raises(ValueError, match=r"\(examples, 3\), got \(2, 4\)"):
        private_step_gradient([torch.zeros(2, 4)], settings, secure().generator(), num_values=3)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("clip_norm", 0.0),
        ("clip_norm", math.inf),
        ("noise_multiplier", -1.0),
        ("noise_multiplier", math.nan),
        ("expected_units", 0.0),
    ],
)
def test_settings_that_mean_nothing_are_refused(name: str, value: float) -> None:
    right = {"clip_norm": 1.0, "noise_multiplier": 1.0, "expected_units": 1.0}
    with pytest.raises(ValueError, match=name):
        GaussianSettings(**{**right, name: value})
