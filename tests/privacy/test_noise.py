import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kstest  # type: ignore[import-untyped]  # scipy ships no types

from pkgllm.privacy.noise import add_gaussian, fixed, poisson_sample, secure

Names = st.tuples(st.text(max_size=8), st.integers(0, 50), st.integers(0, 50))


def drawn(generator: np.random.Generator, num_values: int = 8) -> list[float]:
    values = torch.zeros(num_values, dtype=torch.float64)
    add_gaussian(values, 1.0, generator)
    return values.tolist()


@settings(max_examples=30)
@given(names=st.lists(Names, min_size=2, max_size=6))
def test_no_two_clients_rounds_or_steps_share_noise(names: list[tuple[str, int, int]]) -> None:
    source = secure()
    seen = [value for name in names for value in drawn(source.generator("noise", *name))]
    assert len(set(seen)) == len(seen)


@settings(max_examples=30)
@given(one=Names, other=Names)
def test_fixed_noise_differs_by_every_name_and_comes_back(
    one: tuple[str, int, int], other: tuple[str, int, int]
) -> None:
    source = fixed(3, "run")
    assert drawn(source.generator(*one)) == drawn(source.generator(*one))
    assert (drawn(source.generator(*one)) == drawn(source.generator(*other))) == (one == other)
    assert drawn(fixed(4, "run").generator(*one)) != drawn(source.generator(*one))


def test_only_fixed_noise_can_be_repeated() -> None:
    assert fixed(0).reproducible
    assert not secure().reproducible


def test_secure_noise_does_not_follow_the_seeds_of_a_run() -> None:
    found = []
    for _ in range(2):
        torch.manual_seed(0)
        np.random.seed(0)
        found.append(drawn(secure().generator("noise", "anna", 1, 0)))
    assert found[0] != found[1]


def test_a_cpu_generator_of_torch_would_keep_half_of_a_seed_only() -> None:
    # Why it is not used: with 2^32 streams the noise of two clients soon is the same.
    one, other = torch.Generator().manual_seed(5), torch.Generator().manual_seed(5 + (7 << 32))
    assert torch.equal(torch.randn(9, generator=one), torch.randn(9, generator=other))


def test_noise_is_gaussian_across_blocks() -> None:
    values = torch.zeros(3, 700_001, dtype=torch.float64)
    add_gaussian(values, 2.5, secure().generator())
    assert kstest(values.reshape(-1).numpy()[::7] / 2.5, "norm").pvalue > 1e-5
    assert len(np.unique(values.numpy())) == values.numel()


def test_noise_is_added_to_what_is_there() -> None:
    values = torch.tensor([5.0, -2.0], dtype=torch.float64)
    add_gaussian(values, 0.0, secure().generator())
    assert values.tolist() == [5.0, -2.0]


@pytest.mark.parametrize("std", [-1.0, float("nan"), float("inf")])
def test_a_std_that_is_none_is_refused(std: float) -> None:
    with pytest.raises(ValueError, match="must be 0 or more"):
        add_gaussian(torch.zeros(2, dtype=torch.float64), std, secure().generator())


def test_low_precision_is_refused() -> None:
    with pytest.raises(ValueError, match="float64"):
        add_gaussian(torch.zeros(2), 1.0, secure().generator())


def test_a_poisson_sample_draws_each_unit_by_itself() -> None:
    source = secure()
    taken = np.zeros((4000, 20), dtype=bool)
    for row in taken:
        row[list(poisson_sample(20, 0.3, source.generator()))] = True
    # Six standard deviations of a mean and of a correlation.
    assert np.abs(taken.mean(0) - 0.3).max() < 6 * (0.21 / 4000) ** 0.5
    off_diagonal = np.corrcoef(taken.T)[~np.eye(20, dtype=bool)]
    assert np.abs(off_diagonal).max() < 6 / 4000**0.5


def test_a_poisson_sample_may_be_empty_or_whole() -> None:
    assert any(not poisson_sample(3, 0.05, fixed(seed).generator()) for seed in range(20))
    assert poisson_sample(4, 1.0, secure().generator()) == (0, 1, 2, 3)


@pytest.mark.parametrize("probability", [0.0, -0.1, 1.1, float("nan")])
def test_a_probability_that_is_none_is_refused(probability: float) -> None:
    with pytest.raises(ValueError, match="sampling_probability"):
        poisson_sample(3, probability, secure().generator())
