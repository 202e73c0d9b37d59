from collections.abc import Mapping, Sequence
from itertools import accumulate

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from helpers.tiny_cohorts import OBJECTIVES, Tally, cache, some_groups
from helpers.tiny_groups import Ids, a_group
from helpers.tiny_objectives import ByFunction
from pkgllm.objectives.objective import Objective
from pkgllm.objectives.scored_groups import ScoredGroups
from pkgllm.objectives.sft import Sft
from pkgllm.prompts.groups import Group
from pkgllm.training.batches import branches_of, scored_groups
from pkgllm.training.lane_losses import lane_losses
from pkgllm.training.lane_passes import ScoredPass
from pkgllm.training.log_probabilities import Branch

LANES = tuple(some_groups(count, seed=count) for count in (2, 1, 3))
"""Three lanes of two, one and three groups."""


def value_of(prompt: Ids, completion: Ids) -> float:
    """An invented log-probability of the reference that each pair has to itself."""
    return -float(np.random.default_rng((len(prompt), *prompt, *completion)).uniform(0, 9))


def invented(branches: Sequence[Branch]) -> Tensor:
    return torch.tensor(
        [
            value_of(group.prompt.token_ids, completion.token_ids)
            for group, completions in branches
            for completion in completions
        ]
    )


def a_pass(lanes: Sequence[Sequence[Branch]], log_probs: Tensor) -> ScoredPass:
    counts = [sum(len(chosen) for _, chosen in branches) for branches in lanes]
    return ScoredPass(log_probs, (0, *accumulate(counts)), torch.empty(0), None, 0, 0)


def scored_lanes(
    groups: Sequence[Sequence[Group]], objective: Objective, *, seed: int = 0
) -> tuple[list[list[Branch]], ScoredPass]:
    """Lanes with log-probabilities from nowhere."""
    lanes = [branches_of(of_lane, objective) for of_lane in groups]
    count = sum(len(chosen) for branches in lanes for _, chosen in branches)
    log_probs = -9 * torch.rand(count, generator=torch.Generator().manual_seed(seed))
    return lanes, a_pass(lanes, log_probs)


def values(losses: Sequence[float | Exception]) -> list[float]:
    """The losses of lanes of which none may fail."""
    found = []
    for loss in losses:
        assert not isinstance(loss, Exception), loss
        found.append(loss)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", OBJECTIVES)
@settings(deadline=None, max_examples=50)
@given(
    lanes=st.lists(st.tuples(st.integers(1, 3), st.integers(0, 50)), min_size=1, max_size=4).map(
        lambda drawn: [some_groups(count, seed=seed) for count, seed in drawn]
    ),
    seed=st.integers(0, 9),
)
def test_every_lane_gets_what_it_would_get_alone(
    name: str, lanes: list[tuple[Group, ...]], seed: int
) -> None:
    objective = OBJECTIVES[name]
    branches, scored = scored_lanes(lanes, objective, seed=seed)
    losses, gradient = lane_losses(branches, scored, objective, cache(invented))
    assert len(losses) == len(lanes)
    assert gradient.shape == scored.log_probs.shape
    assert not scored.log_probs.requires_grad
    for number, of_lane in enumerate(branches):
        own = slice(scored.bounds[number], scored.bounds[number + 1])
        policy = scored.log_probs[own].clone().requires_grad_()
        alone = objective.loss(scored_groups(of_lane, policy, invented(of_lane)))
        (expected,) = torch.autograd.grad(alone, policy)
        assert losses[number] == alone.item()
        assert torch.equal(gradient[own], expected)


def test_the_likelihood_of_two_lanes_by_hand() -> None:
    first = [a_group((5, 6), [(7, 2), (8, 2)], [(9, 2)]), a_group((3,), [(4, 2)], [])]
    second = [a_group((5, 6), [(9, 2)], [(7, 2)])]
    lanes = [branches_of(groups, Sft()) for groups in (first, second)]
    log_probs = torch.tensor([-1.0, -3.0, -8.0, -4.0, -5.0, -8.0])
    losses, gradient = lane_losses(lanes, a_pass(lanes, log_probs), Sft(), cache(invented))
    # The mean over groups of the mean over desirable completions: ((1 + 3) / 2 + 4) / 2, and 5.
    assert losses == [3.0, 5.0]
    assert gradient.tolist() == [-0.25, -0.25, 0.0, -0.5, -1.0, 0.0]


@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_reference_is_asked_for_what_the_objective_needs(name: str) -> None:
    objective = OBJECTIVES[name]
    lanes, scored = scored_lanes(LANES, objective)
    tally = Tally(invented)
    lane_losses(lanes, scored, objective, cache(tally))
    needed = {
        (group.prompt.token_ids, completion.token_ids)
        for branches in lanes
        for group, chosen in branches
        for completion in chosen
    }
    assert set(tally.asked) == (needed if objective.needs_reference else set())


class RefusalError(Exception):
    """Raised by an objective that a lane cannot have."""


def at_lane_of(num_groups: int, answer: float | Exception) -> Objective:
    """S-DPO, but not for a lane with so many groups."""

    def loss(groups: ScoredGroups) -> Tensor:
        if groups.num_groups == num_groups:
            if isinstance(answer, Exception):
                raise answer
            return answer * groups.policy.sum()
        return OBJECTIVES["sdpo"].loss(groups)

    return ByFunction(function=loss)


@pytest.mark.parametrize("failing", [1, 2, 3])
@pytest.mark.parametrize("answer", [RefusalError("no"), float("nan"), float("inf"), -float("inf")])
def test_a_lane_that_fails_does_so_alone(failing: int, answer: float | Exception) -> None:
    lanes, scored = scored_lanes(LANES, OBJECTIVES["sdpo"])
    good, good_gradient = lane_losses(lanes, scored, OBJECTIVES["sdpo"], cache(invented))
    losses, gradient = lane_losses(lanes, scored, at_lane_of(failing, answer), cache(invented))
    for number, groups in enumerate(LANES):
        own = slice(scored.bounds[number], scored.bounds[number + 1])
        assert good_gradient[own].any()
        found = losses[number]
        if len(groups) != failing:
            assert found == good[number]
            assert torch.equal(gradient[own], good_gradient[own])
        else:
            assert not gradient[own].any()
            if isinstance(answer, Exception):
                assert found is answer
            else:
                assert not np.isfinite(values([found])[0])


def test_every_lane_may_fail() -> None:
    errors = {len(groups): RefusalError(len(groups)) for groups in LANES}

    def loss(groups: ScoredGroups) -> Tensor:
        raise errors[groups.num_groups]

    refused = ByFunction(function=loss, reference=False)
    lanes, scored = scored_lanes(LANES, refused)
    losses, gradient = lane_losses(lanes, scored, refused, cache(invented))
    assert losses == [errors[len(groups)] for groups in LANES]
    assert torch.equal(gradient, torch.zeros_like(scored.log_probs))


@pytest.mark.parametrize("value", [float("nan"), -float("inf")])
@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("of_reference", [False, True])
def test_log_probabilities_that_are_no_numbers_stay_in_their_lane(
    name: str, value: float, of_reference: bool
) -> None:
    objective = OBJECTIVES[name]
    lanes, scored = scored_lanes(LANES, objective)
    good, good_gradient = lane_losses(lanes, scored, objective, cache(invented))
    own = slice(scored.bounds[1], scored.bounds[2])
    reference: Mapping[Ids, float] = {}
    if of_reference:
        ((group, _),) = lanes[1]
        reference = {group.prompt.token_ids: value}
    else:
        scored.log_probs[own] = value

    def damaged(branches: Sequence[Branch]) -> Tensor:
        found = [
            reference.get(group.prompt.token_ids, number)
            for group, completions in branches
            for number in invented([(group, completions)]).tolist()
        ]
        return torch.tensor(found)

    losses, gradient = lane_losses(lanes, scored, objective, cache(damaged))
    assert gradient.isfinite().all()
    others = torch.ones_like(gradient, dtype=torch.bool)
    others[own] = False
    assert torch.equal(gradient[others], good_gradient[others])
    assert (losses[0], losses[2]) == (good[0], good[2])


def test_an_interrupt_is_no_failure_of_a_lane() -> None:
    def loss(groups: ScoredGroups) -> Tensor:
        raise KeyboardInterrupt

    stopped = ByFunction(function=loss, reference=False)
    lanes, scored = scored_lanes(LANES, stopped)
    with pytest.raises(KeyboardInterrupt):
        lane_losses(lanes, scored, stopped, cache(invented))
