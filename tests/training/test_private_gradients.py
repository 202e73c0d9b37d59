"""Gradients of lanes through the private step: what a client with unit ``example`` sends on."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from helpers.tiny_cohorts import OBJECTIVES, ROOM, cache, own_adapters, some_groups
from helpers.tiny_groups import a_policy
from pkgllm.lm.adapter import attach_adapter, load_adapter_state
from pkgllm.lm.base_model import load_base_model
from pkgllm.lm.lanes.decoder import LaneDecoder
from pkgllm.objectives.objective import Objective
from pkgllm.privacy.audit import sensitivity
from pkgllm.privacy.clipping import GaussianSettings
from pkgllm.privacy.example_level import private_step_gradient
from pkgllm.privacy.noise import fixed
from pkgllm.prompts.groups import Group
from pkgllm.training import sequential
from pkgllm.training.example_gradients import example_gradients
from pkgllm.training.lane_memory import PassCost
from pkgllm.training.lane_passes import reference_scorer

GROUPS = some_groups(7, seed=3)


class Private:
    """One model with one adapter, and what its private step makes of a batch."""

    def __init__(self, folder: Path, *, freeze_a: bool = False) -> None:
        base = load_base_model(str(folder), device="cpu")
        self.decoder = LaneDecoder(
            attach_adapter(
                base.model,
                lora_rank=2,
                lora_alpha=4,
                target_modules="all-linear",
                seed=5,
                freeze_a=freeze_a,
            )
        )
        self.policy = a_policy(load_base_model(str(folder), device="cpu"))
        adapter = own_adapters(self.policy, ["p1"])["p1"]
        load_adapter_state(self.policy, adapter)
        self.values = self.decoder.layout.to_vector(adapter)
        self.reference = cache(reference_scorer(self.decoder, ROOM))
        self.first = 0 if self.decoder.trains_lora_a else self.decoder.layout.num_lora_a

    def parts(
        self, groups: Sequence[Group], objective: Objective, room: int = ROOM
    ) -> list[Tensor]:
        return [
            part.gradients[:, self.first :].clone()
            for part in example_gradients(
                self.decoder, self.values, groups, objective, self.reference, memory_bytes=room
            )
        ]

    def by_example(self, groups: Sequence[Group], objective: Objective) -> Tensor:
        """The gradient of each example, in the order of the batch."""
        found = torch.zeros(len(groups), len(self.values))
        for part in example_gradients(
            self.decoder, self.values, groups, objective, self.reference, memory_bytes=ROOM
        ):
            found[list(part.indices)] = part.gradients
        return found

    def step(
        self,
        groups: Sequence[Group],
        objective: Objective,
        settings: GaussianSettings,
        room: int = ROOM,
    ) -> Tensor:
        parts = example_gradients(
            self.decoder, self.values, groups, objective, self.reference, memory_bytes=room
        )
        return private_step_gradient(
            (part.gradients[:, self.first :] for part in parts),
            settings,
            fixed(0).generator("noise", "p1", 1, 0),
            num_values=len(self.values) - self.first,
        )


@pytest.fixture(scope="module")
def private(tiny_base_folder: Path) -> Private:
    return Private(tiny_base_folder)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["apo_zero", "dpo", "sft"])
def test_the_step_is_the_mean_of_clipped_gradients(private: Private, name: str) -> None:
    rows = torch.cat(private.parts(GROUPS, OBJECTIVES[name])).double()
    norms = rows.norm(dim=1)
    clip_norm = float(norms[norms > 0].median())
    assert (norms > clip_norm).any()
    expected = (rows * (clip_norm / norms.clamp(min=clip_norm))[:, None]).sum(0) / 4
    found = private.step(GROUPS, OBJECTIVES[name], GaussianSettings(clip_norm, 0.0, 4.0))
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


@pytest.mark.slow
def test_parts_that_fit_into_little_memory_give_the_same_step(private: Private) -> None:
    objective, settings = OBJECTIVES["apo_zero"], GaussianSettings(0.1, 0.0, 4.0)
    longest = 64
    cost = PassCost.of(private.decoder, longest_group=longest, checkpoint=False)
    room = int(cost.total(rows=2 * longest, lanes=2))
    assert len(private.parts(GROUPS, objective, room)) > 1
    expected = private.step(GROUPS, objective, settings)
    found = private.step(GROUPS, objective, settings, room)
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_an_empty_batch_is_noise_alone(private: Private) -> None:
    settings = GaussianSettings(0.5, 2.0, 4.0)
    found = private.step([], OBJECTIVES["apo_zero"], settings)
    ratio = float(found.norm()) / math.sqrt(len(found)) / settings.released_std
    assert ratio == pytest.approx(1.0, abs=4 / math.sqrt(2 * len(found)))


def test_frozen_factors_are_not_in_the_step(tiny_base_folder: Path) -> None:
    private = Private(tiny_base_folder, freeze_a=True)
    layout = private.decoder.layout
    found = private.step(GROUPS, OBJECTIVES["dpo"], GaussianSettings(0.1, 1.0, 4.0))
    assert found.shape == (layout.num_values - layout.num_lora_a,)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["apo_zero", "public kto", "dpo", "sdpo", "sft", "kto"])
def test_no_group_moves_the_sum_by_more_than_the_clip_norm(private: Private, name: str) -> None:
    settings = GaussianSettings(0.05, 1.0, 4.0)

    def release(members: Sequence[int]) -> Tensor:
        return private.step([GROUPS[m] for m in members], OBJECTIVES[name], settings)

    # KTO is harmless here because each example is a batch of its own: its baseline is its own too.
    assert 0.5 < sensitivity(release, range(len(GROUPS)), settings) <= 1 + 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("name", ["apo_zero", "public kto", "sft"])
def test_another_example_changes_no_gradient_but_its_own(private: Private, name: str) -> None:
    (other,) = some_groups(1, seed=99)
    before, after = (
        private.by_example(groups, OBJECTIVES[name])
        for groups in (GROUPS, [*GROUPS[:2], other, *GROUPS[3:]])
    )
    moved = (after - before).norm(dim=1) / before.norm(dim=1).max()
    assert moved[2] > 0.1
    assert moved[[0, 1, 3, 4, 5, 6]].max() < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("name", ["kto", "public kto"])
def test_only_a_baseline_of_the_batch_lets_an_example_move_others(
    private: Private, name: str
) -> None:
    """What TRL's loss would do: gradients of each example's term, the baseline of all of them."""
    objective = OBJECTIVES[name]
    parameters = [p for p in private.policy.parameters() if p.requires_grad]
    reference = cache(sequential.reference_scorer(private.policy))

    def rows(groups: Sequence[Group]) -> Tensor:
        scored = sequential.score(private.policy, groups, objective, reference)
        # The batch's loss is the mean over groups, so a group's term is what leaving out the
        # policy of all others leaves of its gradient.
        terms = []
        for number in range(len(groups)):
            own = scored.group_index == number
            policy = torch.where(own, scored.policy, scored.policy.detach())
            loss = objective.loss(
                replace(
                    scored,
                    policy=policy,
                    # A canary whose mismatched pair has become very likely.
                    mismatched_log_ratio=scored.mismatched_log_ratio
                    + 200.0 * (groups[0] is GROUPS[0]),
                )
            )
            found = torch.autograd.grad(loss * len(groups), parameters, retain_graph=True)
            terms.append(torch.cat([gradient.reshape(-1) for gradient in found]))
        return torch.stack(terms)

    clip_norm = float(rows(GROUPS[1:]).norm(dim=1).max())
    settings = GaussianSettings(clip_norm, 1.0, 4.0)

    def release(members: Sequence[int]) -> Tensor:
        found = rows([GROUPS[m] for m in members])
        return private_step_gradient(
            [found], settings, fixed(0).generator(), num_values=found.shape[1]
        )

    found = sensitivity(release, range(len(GROUPS)), settings)
    if name == "kto":
        assert found > 1.1
    else:
        assert found <= 1 + 1e-3
