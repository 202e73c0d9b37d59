"""The clients' side of privacy unit ``example``: what leaves a client is clipped, noised, paid."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel
from torch import Tensor

from helpers.tiny_cohorts import (
    OBJECTIVES,
    PUBLIC_KTO,
    ROOM,
    assert_close,
    cache,
    lane_trainer,
    largest_gap,
    own_adapters,
    some_groups,
    some_steps,
    train,
)
from helpers.tiny_groups import a_policy
from helpers.tiny_objectives import ByFunction
from pkgllm.errors import FederationError, PrivacyError
from pkgllm.lm.adapter import AdapterState, attach_adapter
from pkgllm.lm.base_model import load_base_model
from pkgllm.lm.lanes.decoder import LaneDecoder
from pkgllm.objectives.objective import Objective
from pkgllm.objectives.scored_groups import ScoredGroups
from pkgllm.privacy.clipping import GaussianSettings
from pkgllm.privacy.example_level import Charge
from pkgllm.privacy.mechanisms import Mechanism
from pkgllm.privacy.noise import NoiseSource, fixed, secure
from pkgllm.privacy.unit import Participation
from pkgllm.privacy.units.example import ExamplePrivacy
from pkgllm.prompts.groups import Group
from pkgllm.training.lane_passes import reference_scorer
from pkgllm.training.private_lanes import PrivateLaneTrainer

GROUPS = {f"p{number}": some_groups(3, seed=number) for number in range(1, 4)}
EXACT = GaussianSettings(clip_norm=1e6, noise_multiplier=0.0, expected_units=3.0)
"""Draws every group of a client that has three, clips none and adds nothing."""


@dataclass
class Charges:
    """Takes down what is charged."""

    seen: list[tuple[int, Mapping[str, Mechanism]]] = field(default_factory=list)

    def __call__(self, round_num: int, released: Mapping[str, Mechanism]) -> None:
        self.seen.append((round_num, dict(released)))


@pytest.fixture(scope="module")
def policy(tiny_base_folder: Path) -> PeftModel:
    return a_policy(load_base_model(str(tiny_base_folder), device="cpu"))


def private_trainer(
    policy: PeftModel,
    settings: GaussianSettings,
    objective: Objective = OBJECTIVES["apo_zero"],
    groups: Mapping[str, Sequence[Group]] = GROUPS,
    *,
    noise: NoiseSource | None = None,
    charge: Charge | None = None,
    **steps: Any,
) -> PrivateLaneTrainer:
    decoder = LaneDecoder(policy)
    return PrivateLaneTrainer(
        decoder,
        groups,
        objective,
        cache(reference_scorer(decoder, ROOM)),
        steps=some_steps(**steps),
        settings=settings,
        noise=fixed(0) if noise is None else noise,
        charge=Charges() if charge is None else charge,
        memory_bytes=ROOM,
    )


def moved(policy: PeftModel, before: AdapterState, after: AdapterState) -> Tensor:
    """How far an adapter went, as one vector, float64."""
    layout = LaneDecoder(policy).layout
    return layout.to_vector(after).double() - layout.to_vector(before).double()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["apo_zero", "dpo", "sft"])
@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_without_noise_and_clipping_it_trains_as_all_groups_in_each_step_do(
    policy: PeftModel, name: str, optimizer: str
) -> None:
    adapters = own_adapters(policy, list(GROUPS))
    chosen: dict[str, Any] = {"optimizer": optimizer, "weight_decay": 0.01}
    plain = lane_trainer(
        policy,
        OBJECTIVES[name],
        GROUPS,
        steps=some_steps(groups_per_step=3, max_grad_norm=1e6, **chosen),
    )
    found = train(private_trainer(policy, EXACT, OBJECTIVES[name], **chosen), adapters)
    assert_close(found, train(plain, adapters))
    assert largest_gap(found["p1"].adapter, adapters["p1"]) > 1e-4


@pytest.mark.parametrize("wrong", [1.0, 2 / 3, 3 / 2])
def test_the_noise_that_is_released_has_the_standard_deviation_that_is_charged(
    policy: PeftModel, wrong: float
) -> None:
    # One step of SGD releases -rate * (sum + noise) / L, and the same draw without noise the sum
    # alone. A standard deviation of n values is off by 1 / sqrt(2 n) of itself.
    rate, settings = 0.5, GaussianSettings(0.25, 1.5, 2.0)
    quiet = GaussianSettings(0.25, 0.0, 2.0)
    adapters = own_adapters(policy, ["p1"])
    # A noise that is wrong by this factor must be told from the right one.
    noisy = GaussianSettings(0.25, 1.5 * wrong, 2.0)
    one: dict[str, Any] = {"optimizer": "sgd", "local_steps": 1}
    after, without = (
        train(private_trainer(policy, s, **one), adapters, learning_rate=rate)["p1"].adapter
        for s in (noisy, quiet)
    )
    noise = moved(policy, without, after)
    error = 1 / math.sqrt(2 * len(noise))
    ratio = float(noise.norm()) / math.sqrt(len(noise)) / (rate * settings.released_std)
    assert abs(ratio - wrong) < 5 * error * wrong
    assert (abs(ratio - 1) < 5 * error) == (wrong == 1.0)
    assert abs(float(noise.mean())) < 5 * rate * noisy.released_std / math.sqrt(len(noise))


def test_no_group_moves_what_is_released_by_more_than_the_clip_norm(policy: PeftModel) -> None:
    adapters = own_adapters(policy, ["p1"])
    every = GROUPS["p1"]
    rate, clip_norm, expected = 0.5, 0.05, 8.0
    settings = GaussianSettings(clip_norm, 0.0, expected)

    def release(groups: Sequence[Group]) -> Tensor:
        trainer = private_trainer(
            policy, settings, groups={"p1": groups}, optimizer="sgd", local_steps=1
        )
        done = train(trainer, adapters, learning_rate=rate)["p1"]
        return moved(policy, adapters["p1"], done.adapter)

    whole = release(every)
    shares = [
        float((whole - release([g for g in every if g is not gone])).norm())
        / (rate * clip_norm / expected)
        for gone in every
    ]
    # All of them are long enough to be clipped, so that each moves it by the clip norm itself.
    assert shares == pytest.approx([1.0] * 3, rel=1e-3)


def test_a_step_that_draws_nobody_releases_noise(policy: PeftModel) -> None:
    # A probability of 1e-9 / 3 draws nobody; the noise is not divided by what was drawn.
    settings = GaussianSettings(1.0, 1e-9, 1e-9)
    adapters = own_adapters(policy, ["p1"])
    charges = Charges()
    trainer = private_trainer(policy, settings, charge=charges, optimizer="sgd", local_steps=1)
    done = train(trainer, adapters, learning_rate=0.5)["p1"]
    noise = moved(policy, adapters["p1"], done.adapter)
    ratio = float(noise.norm()) / math.sqrt(len(noise)) / 0.5
    assert ratio == pytest.approx(1.0, abs=5 / math.sqrt(2 * len(noise)))
    assert done.loss == 0.0
    assert charges.seen[0][1]["p1"].sampling_probability == pytest.approx(1e-9 / 3)


@dataclass
class CountedNoise:
    """Counts the steps that ask for noise."""

    steps: set[int] = field(default_factory=set)
    reproducible: bool = True

    def generator(self, *names: str | int) -> np.random.Generator:
        if names[-1] == "noise":
            self.steps.add(int(names[2]))
        return fixed(0).generator(*names)


@pytest.fixture(scope="module")
def three_steps(policy: PeftModel) -> tuple[Mechanism, int]:
    """What lanes, here and on devices, charge for three local steps, and how often they noised."""
    charges, noise = Charges(), CountedNoise()
    settings = GaussianSettings(1.0, 2.0, 2.0)
    trainer = private_trainer(policy, settings, noise=noise, charge=charges, local_steps=3)
    train(trainer, own_adapters(policy, ["p1"]))
    return charges.seen[0][1]["p1"], len(noise.steps)


def priced(steps_per_round: int) -> Iterator[Mechanism]:
    """What the rounds charge for a client that an actor trains, and what was planned for it."""
    unit = ExamplePrivacy(delta=0.01, clip_norm=1.0, noise_multiplier=2.0, expected_batch_size=2)
    participation = Participation(
        num_clients=3,
        num_groups=dict.fromkeys(GROUPS, 3),
        rounds=1,
        steps_per_round=steps_per_round,
        cohort_size=1,
        min_updates=1,
        rounds_by_client=lambda rounds: {"p1": rounds},
    )
    yield unit.releases(participation, 2.0, ["p1"])["p1"]
    (planned,) = unit.schedules(participation, 1)
    yield Mechanism(2.0, planned.sampling_probability, planned.steps)


def test_every_runtime_charges_each_local_step(three_steps: tuple[Mechanism, int]) -> None:
    charged, noised = three_steps
    assert charged == Mechanism(2.0, 2 / 3, 3)
    assert noised == charged.steps
    assert set(priced(3)) == {charged}
    assert charged not in set(priced(1)), "one step charged for three is noticed"


@pytest.mark.slow
def test_groups_are_drawn_each_by_itself(policy: PeftModel) -> None:
    drawn: list[int] = []
    sft = OBJECTIVES["sft"]

    def loss(scored: ScoredGroups) -> Tensor:
        drawn[-1] += 1
        return sft.loss(scored)

    groups = {"p1": some_groups(6, seed=1)}
    counting = ByFunction(function=loss, reference=False)
    settings = GaussianSettings(1.0, 1.0, 2.0)
    trainer = private_trainer(policy, settings, counting, groups, local_steps=1, optimizer="sgd")
    adapters = own_adapters(policy, ["p1"])
    for round_num in range(1, 61):
        drawn.append(0)
        train(trainer, adapters, round_num=round_num)
    # Binomial with 6 draws at 1/3: mean 2, variance 4/3; over 60 rounds the mean is off by 0.15.
    assert abs(sum(drawn) / 60 - 2) < 5 * 0.15
    variance = sum((count - 2) ** 2 for count in drawn) / 60
    assert 0.5 < variance < 2.5
    assert 0 in drawn


@pytest.mark.slow
def test_the_terms_of_a_strategy_are_neither_clipped_nor_noised(policy: PeftModel) -> None:
    adapters = own_adapters(policy, list(GROUPS))
    corrections = {
        "p1": {key: torch.full_like(value, 100.0) for key, value in adapters["p1"].items()}
    }
    settings = GaussianSettings(0.01, 1.0, 3.0)
    one: dict[str, Any] = {"optimizer": "sgd", "local_steps": 1}
    plain = train(private_trainer(policy, settings, **one), adapters, learning_rate=0.1)
    corrected = train(
        private_trainer(policy, settings, **one),
        adapters,
        learning_rate=0.1,
        corrections=corrections,
    )
    difference = moved(policy, plain["p1"].adapter, corrected["p1"].adapter)
    assert difference == pytest.approx(torch.full_like(difference, -10.0), rel=1e-5)
    assert largest_gap(plain["p2"].adapter, corrected["p2"].adapter) == 0


@pytest.mark.slow
def test_the_proximal_term_pulls_as_it_does_without_privacy(policy: PeftModel) -> None:
    adapters = own_adapters(policy, list(GROUPS))
    chosen: dict[str, Any] = {"optimizer": "sgd", "local_steps": 3}
    plain = lane_trainer(
        policy,
        OBJECTIVES["dpo"],
        GROUPS,
        steps=some_steps(groups_per_step=3, max_grad_norm=1e6, **chosen),
    )
    terms: dict[str, Any] = {"learning_rate": 0.1, "proximal_mu": 5.0}
    found = train(private_trainer(policy, EXACT, OBJECTIVES["dpo"], **chosen), adapters, **terms)
    assert_close(found, train(plain, adapters, **terms))


@pytest.mark.slow
def test_the_baseline_of_the_round_is_that_of_every_group(policy: PeftModel) -> None:
    adapters = own_adapters(policy, list(GROUPS))
    steps: dict[str, Any] = {"groups_per_step": 3, "max_grad_norm": 1e6}
    plain = lane_trainer(policy, PUBLIC_KTO, GROUPS, steps=some_steps(**steps))
    trainer = private_trainer(policy, EXACT, PUBLIC_KTO)
    found = train(trainer, adapters, kl_baseline=2.5)
    assert_close(found, train(plain, adapters, kl_baseline=2.5))
    other = train(trainer, adapters, kl_baseline=0.0)
    assert largest_gap(found["p1"].adapter, other["p1"].adapter) > 1e-4


def test_without_the_baseline_that_it_needs_nothing_is_released_or_charged(
    policy: PeftModel,
) -> None:
    charges = Charges()
    trainer = private_trainer(policy, GaussianSettings(1.0, 2.0, 3.0), PUBLIC_KTO, charge=charges)
    with pytest.raises(FederationError, match="which sent none"):
        trainer(own_adapters(policy, list(GROUPS)), round_num=1, learning_rate=1e-3)
    assert charges.seen == []


@pytest.mark.slow
def test_what_is_released_is_charged_once_and_before_anybody_has_it(policy: PeftModel) -> None:
    groups = {"p1": GROUPS["p1"], "p2": some_groups(8, seed=2)}
    adapters = own_adapters(policy, ["p1", "gone", "p2"])
    settings = GaussianSettings(1.0, 2.0, 4.0)
    charges = Charges()
    trainer = private_trainer(policy, settings, groups=groups, charge=charges)
    found = trainer(adapters, round_num=7, learning_rate=1e-3)
    assert list(found) == ["p1", "gone", "p2"]
    assert isinstance(found["gone"], KeyError)
    # Three steps; p1 has fewer groups than are expected, so it draws all of them.
    expected = {"p1": Mechanism(2.0, 1.0, 3), "p2": Mechanism(2.0, 0.5, 3)}
    assert charges.seen == [(7, expected)]


def test_a_call_in_which_nobody_trains_charges_nothing(policy: PeftModel) -> None:
    charges = Charges()
    trainer = private_trainer(policy, GaussianSettings(1.0, 2.0, 4.0), charge=charges)
    found = trainer(own_adapters(policy, ["gone"]), round_num=1, learning_rate=1e-3)
    assert isinstance(found["gone"], KeyError)
    assert charges.seen == []


@pytest.mark.slow
def test_what_cannot_be_charged_is_not_released(policy: PeftModel) -> None:
    refusal = PrivacyError("the budget is spent")

    def refuse(round_num: int, released: Mapping[str, Mechanism]) -> None:
        raise refusal

    trainer = private_trainer(policy, GaussianSettings(1.0, 2.0, 2.0), charge=refuse)
    adapters = own_adapters(policy, [*GROUPS, "gone"])
    found = trainer(adapters, round_num=1, learning_rate=1e-3)
    assert [found[client] for client in GROUPS] == [refusal] * 3
    assert isinstance(found["gone"], KeyError)


def test_a_group_that_cannot_be_trained_on_adds_nothing_and_fails_nobody(
    policy: PeftModel,
) -> None:
    apo_zero = OBJECTIVES["apo_zero"]
    whole, damaged = GROUPS["p1"], GROUPS["p1"][1]
    size = len(damaged.completions)
    assert [len(group.completions) for group in whole].count(size) == 1

    def loss(scored: ScoredGroups) -> Tensor:
        if len(scored.desirable) == size:
            raise ZeroDivisionError
        return apo_zero.loss(scored)

    failing = ByFunction(function=loss)
    adapters = own_adapters(policy, ["p1"])
    settings = GaussianSettings(0.1, 0.5, 3.0)
    one: dict[str, Any] = {"optimizer": "sgd", "local_steps": 1}
    found = train(private_trainer(policy, settings, failing, {"p1": whole}, **one), adapters)
    others = {"p1": tuple(group for group in whole if group is not damaged)}
    expected = train(private_trainer(policy, settings, groups=others, **one), adapters)
    assert largest_gap(found["p1"].adapter, expected["p1"].adapter) < 1e-7


def test_two_clients_and_two_rounds_share_no_noise(policy: PeftModel) -> None:
    settings = GaussianSettings(1.0, 5.0, 3.0)
    start = own_adapters(policy, ["p1"])["p1"]
    same = dict.fromkeys(("anna", "ben"), GROUPS["p1"])
    for noise in (secure(), fixed(0)):
        trainer = private_trainer(
            policy, settings, groups=same, noise=noise, optimizer="sgd", local_steps=1
        )
        released = [
            moved(policy, start, done.adapter)
            for round_num in (1, 2)
            for done in train(trainer, dict.fromkeys(same, start), round_num=round_num).values()
        ]
        # What is left of independent noises is uncorrelated; the shared gradient is small.
        for number, one in enumerate(released):
            for other in released[:number]:
                cosine = float(torch.nn.functional.cosine_similarity(one, other, dim=0))
                assert abs(cosine) < 0.2


def test_a_frozen_first_factor_is_neither_trained_nor_noised(tiny_base_folder: Path) -> None:
    frozen = attach_adapter(
        load_base_model(str(tiny_base_folder), device="cpu").model,
        lora_rank=2,
        lora_alpha=4,
        target_modules="all-linear",
        seed=5,
        freeze_a=True,
    )
    adapters = own_adapters(frozen, ["p1"])
    trainer = private_trainer(frozen, GaussianSettings(1.0, 1.0, 3.0), optimizer="sgd")
    done = train(trainer, adapters)["p1"]
    for key, value in done.adapter.items():
        assert torch.equal(value, adapters["p1"][key]) == (".lora_A." in key)
    # A correction of 1 is a step of 0.001, where something is trained.
    correction = {
        key: torch.full_like(value, 5.0 if ".lora_A." in key else 1.0)
        for key, value in adapters["p1"].items()
    }
    one = private_trainer(frozen, GaussianSettings(1.0, 0.0, 3.0), optimizer="sgd", local_steps=1)
    plain = train(one, adapters)["p1"].adapter
    corrected = train(one, adapters, corrections={"p1": correction})["p1"].adapter
    for key, value in corrected.items():
        expected = 0.0 if ".lora_A." in key else -0.001
        assert value - plain[key] == pytest.approx(torch.full_like(value, expected), abs=1e-6)


def test_an_objective_that_takes_completions_of_another_group_is_refused(
    policy: PeftModel,
) -> None:
    with pytest.raises(ValueError, match="must not depend on the others of its batch"):
        private_trainer(policy, EXACT, OBJECTIVES["kto"])
