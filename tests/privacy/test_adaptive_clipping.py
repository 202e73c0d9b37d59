import math

import numpy as np
import pytest

from pkgllm.privacy.adaptive_clipping import AdaptiveClipping
from pkgllm.privacy.noise import fixed, secure


def test_a_step_by_hand() -> None:
    # 3 of 4 updates are within: b = (3 - 4/2)/4 + 1/2 = 0.75, and C exp(-0.2 (0.75 - 0.5)).
    after = AdaptiveClipping(count_noise_std=1e-12).next_clip_norm(
        2.0, num_updates=4, num_within=3, expected_cohort=4, noise=secure().generator()
    )
    assert after == pytest.approx(2.0 * math.exp(-0.05))


def test_an_empty_cohort_counts_as_half() -> None:
    after = AdaptiveClipping(count_noise_std=1e-12).next_clip_norm(
        2.0, num_updates=0, num_within=0, expected_cohort=4, noise=secure().generator()
    )
    assert after == pytest.approx(2.0)


@pytest.mark.parametrize("quantile", [0.2, 0.5, 0.8])
@pytest.mark.parametrize("start", [1e-3, 50.0])
def test_the_clip_norm_finds_the_quantile(quantile: float, start: float) -> None:
    clipping = AdaptiveClipping(target_quantile=quantile, count_noise_std=5.0)
    lengths, clip_norm = np.random.default_rng(0), start
    for round_num in range(600):
        drawn = lengths.uniform(0, 10, 100)
        clip_norm = clipping.next_clip_norm(
            clip_norm,
            num_updates=100,
            num_within=int((drawn <= clip_norm).sum()),
            expected_cohort=100,
            noise=fixed(0).generator(round_num),
        )
    assert clip_norm == pytest.approx(10 * quantile, rel=0.15)


def test_one_client_moves_the_count_by_half() -> None:
    clipping = AdaptiveClipping(learning_rate=1.0, count_noise_std=3.0)

    def logarithm(num_updates: int, num_within: int) -> float:
        after = clipping.next_clip_norm(
            1.0,
            num_updates=num_updates,
            num_within=num_within,
            expected_cohort=1,
            noise=fixed(0).generator(),
        )
        return math.log(after)

    for added in (0, 1):
        moved = abs(logarithm(11, 6 + added) - logarithm(10, 6))
        assert moved == pytest.approx(0.5)


@pytest.mark.parametrize(("noise_multiplier", "count_noise_std"), [(1.0, 5.0), (0.3, 0.2), (4, 10)])
def test_updates_and_count_together_have_the_stated_noise_multiplier(
    noise_multiplier: float, count_noise_std: float
) -> None:
    # Scaled to unit noise, a client moves updates by 1/z_delta and the count by (1/2)/sigma_b.
    clipping = AdaptiveClipping(count_noise_std=count_noise_std)
    other = clipping.update_noise_multiplier(noise_multiplier)
    assert math.hypot(1 / other, 0.5 / count_noise_std) == pytest.approx(1 / noise_multiplier)
    assert other > noise_multiplier


@pytest.mark.parametrize(("noise_multiplier", "std"), [(1.0, 0.5), (2.0, 0.9), (0.0, 1.0)])
def test_a_count_that_costs_everything_is_refused(noise_multiplier: float, std: float) -> None:
    with pytest.raises(ValueError, match="half of the noise multiplier"):
        AdaptiveClipping(count_noise_std=std).update_noise_multiplier(noise_multiplier)
