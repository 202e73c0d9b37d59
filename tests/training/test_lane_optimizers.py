from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from pkgllm.training.lane_optimizers import LaneAdamW, LaneOptimizer, LaneSgd, clip_gradients

numbers = st.one_of(st.floats(-3, 3, width=32), st.sampled_from([0.0, 1e-12, -1e-6, 300.0]))


@dataclass(frozen=True)
class Course:
    """Lanes that take their steps, those with the most first."""

    values: Tensor
    gradients: list[Tensor]
    """Of each step, for the lanes that are still on their way."""
    rates: Tensor
    weight_decay: float


@st.composite
def courses(draw: st.DrawFn) -> Course:
    num_lanes, num_values = draw(st.integers(1, 4)), draw(st.integers(1, 5))
    steps = sorted(
        draw(st.lists(st.integers(1, 6), min_size=num_lanes, max_size=num_lanes)), reverse=True
    )

    def stacked(lanes: int) -> Tensor:
        rows = st.lists(numbers, min_size=num_values, max_size=num_values)
        return torch.tensor(draw(st.lists(rows, min_size=lanes, max_size=lanes)))

    return Course(
        values=stacked(num_lanes).clamp(-3, 3),
        gradients=[stacked(sum(step < count for count in steps)) for step in range(steps[0])],
        rates=torch.tensor(
            [[draw(st.sampled_from([1e-4, 3e-3, 0.02, 0.1]))] for _ in range(num_lanes)]
        ),
        weight_decay=draw(st.sampled_from([0.0, 0.01, 0.3])),
    )


def all_lanes(optimizer: LaneOptimizer, course: Course) -> Tensor:
    values = course.values.clone()
    for gradients in course.gradients:
        now = len(gradients)
        optimizer.step(values[:now], gradients.clone(), course.rates[:now])
    return values


def one_by_one(
    make: Callable[[Tensor, float], torch.optim.Optimizer], course: Course
) -> list[Tensor]:
    """What torch does with one model for each lane."""
    found = []
    for lane, start in enumerate(course.values):
        parameter = torch.nn.Parameter(start.clone())
        optimizer = make(parameter, course.rates[lane].item())
        for gradients in course.gradients:
            if lane < len(gradients):
                parameter.grad = gradients[lane].clone()
                optimizer.step()
        found.append(parameter.detach())
    return found


@pytest.mark.slow
@given(courses())
def test_adamw_is_that_of_torch_in_every_lane(course: Course) -> None:
    found = all_lanes(LaneAdamW(weight_decay=course.weight_decay), course)
    expected = one_by_one(
        lambda p, rate: torch.optim.AdamW([p], lr=rate, weight_decay=course.weight_decay), course
    )
    torch.testing.assert_close(found, torch.stack(expected), atol=1e-6, rtol=1e-6)


@pytest.mark.slow
@given(courses(), st.floats(0, 0.95), st.floats(0.5, 0.999), st.sampled_from([1e-8, 1e-3]))
def test_adamw_takes_other_betas_and_another_epsilon(
    course: Course, beta1: float, beta2: float, epsilon: float
) -> None:
    betas = (beta1, beta2)
    found = all_lanes(
        LaneAdamW(weight_decay=course.weight_decay, betas=betas, epsilon=epsilon), course
    )
    expected = one_by_one(
        lambda p, rate: torch.optim.AdamW(
            [p], lr=rate, betas=betas, eps=epsilon, weight_decay=course.weight_decay
        ),
        course,
    )
    torch.testing.assert_close(found, torch.stack(expected), atol=1e-6, rtol=1e-6)


@pytest.mark.slow
@given(courses())
def test_sgd_is_that_of_torch_in_every_lane(course: Course) -> None:
    found = all_lanes(LaneSgd(weight_decay=course.weight_decay), course)
    expected = one_by_one(
        lambda p, rate: torch.optim.SGD([p], lr=rate, weight_decay=course.weight_decay), course
    )
    torch.testing.assert_close(found, torch.stack(expected), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("make", [LaneAdamW, LaneSgd])
def test_a_lane_moves_as_it_would_alone(make: Callable[..., LaneOptimizer]) -> None:
    generator = torch.Generator().manual_seed(5)
    values = torch.randn(3, 7, generator=generator)
    gradients = [torch.randn(3, 7, generator=generator) for _ in range(4)]
    # What is no number in one lane stays there.
    gradients[1][2] = torch.nan
    rates = torch.tensor([[0.1], [0.02], [0.3]])
    together = all_lanes(make(weight_decay=0.1), Course(values, gradients, rates, 0.1))
    for lane in (0, 1):
        own = [step[lane : lane + 1] for step in gradients]
        course = Course(values[lane : lane + 1], own, rates[lane : lane + 1], 0.1)
        assert torch.equal(all_lanes(make(weight_decay=0.1), course)[0], together[lane])
    assert together[2].isnan().all()


@pytest.mark.parametrize("make", [LaneAdamW, LaneSgd])
def test_gradients_and_finished_lanes_are_left_alone(make: Callable[..., LaneOptimizer]) -> None:
    values, gradients = torch.ones(3, 2), torch.full((3, 2), 2.0)
    optimizer = make(weight_decay=0.5)
    rates = torch.full((3, 1), 0.1)
    optimizer.step(values, gradients, rates)
    finished = values[1:].clone()
    optimizer.step(values[:1], gradients[:1], rates[:1])
    assert torch.equal(values[1:], finished)
    assert (values[0] < finished[0]).all()
    assert torch.equal(gradients, torch.full((3, 2), 2.0))


@pytest.mark.slow
@given(courses(), st.lists(st.sampled_from([1e-3, 0.5, 4.0, 1e4]), min_size=4, max_size=4))
def test_gradients_are_clipped_as_torch_clips_one_models(
    course: Course, max_norms: list[float]
) -> None:
    gradients = course.gradients[0].clone()
    longest = torch.tensor(max_norms[: len(gradients)])[:, None]
    norms = clip_gradients(gradients, longest)
    assert norms.shape == (len(gradients), 1)
    for lane, gradient in enumerate(course.gradients[0]):
        parameter = torch.nn.Parameter(torch.zeros_like(gradient))
        parameter.grad = gradient.clone()
        norm = torch.nn.utils.clip_grad_norm_([parameter], max_norms[lane])
        torch.testing.assert_close(gradients[lane], parameter.grad, atol=1e-6, rtol=1e-6)
        torch.testing.assert_close(norms[lane, 0], norm, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_gradient_that_is_not_finite_spoils_its_own_lane_alone(value: float) -> None:
    gradients = torch.tensor([[3.0, 4.0], [value, 1.0], [0.3, 0.4]])
    clip_gradients(gradients, torch.ones(3, 1))
    assert gradients[0].tolist() == pytest.approx([0.6, 0.8])
    assert gradients[1].isnan().any()
    assert gradients[2].tolist() == pytest.approx([0.3, 0.4])


def test_a_tiny_gradient_is_clipped_with_torchs_millionth() -> None:
    gradients = torch.tensor([[3e-6, 4e-6], [0.0, 0.0]])
    clip_gradients(gradients, torch.full((2, 1), 5e-6))
    # Five parts of six are left.
    assert gradients[0].tolist() == pytest.approx([2.5e-6, 4e-6 * 5 / 6], rel=1e-5)
    assert gradients[1].tolist() == [0, 0]
