"""What a strategy adds to gradients: both engines, after clipping, on trained values alone."""

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from peft import PeftModel

from helpers.tiny_cohorts import (
    OBJECTIVES,
    UNEQUAL,
    assert_close,
    assert_same_bits,
    lane_trainer,
    largest_gap,
    own_adapters,
    sequential_trainer,
    some_steps,
    train,
)
from pkgllm.lm.adapter import AdapterState, attach_adapter
from pkgllm.lm.base_model import BaseModel
from pkgllm.training.lane_memory import PassCost
from pkgllm.training.local_terms import LaneTerms

pytest_plugins = ["helpers.cohort_fixtures"]

SGD = some_steps(optimizer="sgd", local_steps=3, max_grad_norm=0.5)
OBJECTIVE = OBJECTIVES["kto with likelihood"]


def corrections_like(adapters: Mapping[str, AdapterState]) -> dict[str, AdapterState]:
    """A correction for every client but one."""
    generator = torch.Generator().manual_seed(4)
    return {
        client: {
            key: torch.empty_like(value).normal_(0, 0.05, generator=generator)
            for key, value in state.items()
        }
        for client, state in adapters.items()
        if client != "p2"
    }


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["proximal", "corrections", "both"])
@pytest.mark.parametrize(("optimizer", "learning_rate"), [("sgd", 0.1), ("adamw", 1e-3)])
def test_lanes_are_as_one_client_after_the_other(
    policy: PeftModel,
    adapters: Mapping[str, AdapterState],
    kind: str,
    optimizer: str,
    learning_rate: float,
) -> None:
    terms: dict[str, Any] = {"learning_rate": learning_rate}
    if kind != "corrections":
        terms["proximal_mu"] = 0.7
    if kind != "proximal":
        terms["corrections"] = corrections_like(adapters)
    steps = some_steps(optimizer=optimizer, local_steps=3)
    sequential = sequential_trainer(policy, OBJECTIVE, steps=steps)
    lanes = lane_trainer(policy, OBJECTIVE, steps=steps)
    expected = train(sequential, adapters, **terms)
    assert_close(train(lanes, adapters, **terms), expected)
    plain = train(sequential, adapters, learning_rate=learning_rate)
    changed = {
        client: largest_gap(expected[client].adapter, plain[client].adapter) for client in adapters
    }
    assert all(gap > 2e-4 for client, gap in changed.items() if client != "p2")
    assert (changed["p2"] == 0) == (kind == "corrections")


@pytest.mark.slow
@pytest.mark.usefixtures("batched")
def test_lanes_that_are_batched_are_as_well(
    policy: PeftModel,
    adapters: Mapping[str, AdapterState],
) -> None:
    terms: dict[str, Any] = {
        "proximal_mu": 0.7,
        "corrections": corrections_like(adapters),
        "learning_rate": 0.1,
    }
    expected = train(sequential_trainer(policy, OBJECTIVE, steps=SGD), adapters, **terms)
    assert_close(train(lane_trainer(policy, OBJECTIVE, steps=SGD), adapters, **terms), expected)


@pytest.mark.slow
@pytest.mark.parametrize("make", [lane_trainer, sequential_trainer])
def test_terms_come_after_clipping(
    policy: PeftModel,
    adapters: Mapping[str, AdapterState],
    make: Any,
) -> None:
    # One plain step: y = x - rate * (clipped gradient + correction), however long the correction.
    steps = some_steps(optimizer="sgd", local_steps=1, max_grad_norm=1e-3)
    trainer = make(policy, OBJECTIVE, steps=steps)
    long = {c: {k: torch.ones_like(v) for k, v in s.items()} for c, s in adapters.items()}
    plain = train(trainer, adapters, learning_rate=0.5)
    found = train(trainer, adapters, learning_rate=0.5, corrections=long)
    for client in adapters:
        for key, value in plain[client].adapter.items():
            torch.testing.assert_close(found[client].adapter[key], value - 0.5, rtol=0, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("make", [lane_trainer, sequential_trainer])
def test_no_term_is_nothing_to_the_bit_and_what_is_given_stays(
    policy: PeftModel,
    adapters: Mapping[str, AdapterState],
    make: Any,
) -> None:
    trainer = make(policy, OBJECTIVE, steps=SGD)
    corrections = corrections_like(adapters)
    kept = {c: {k: v.clone() for k, v in state.items()} for c, state in corrections.items()}
    plain = train(trainer, adapters)
    assert_same_bits(train(trainer, adapters, proximal_mu=0.0, corrections={}), plain)
    train(trainer, adapters, proximal_mu=0.5, corrections=corrections)
    for client, state in corrections.items():
        assert all(torch.equal(value, kept[client][key]) for key, value in state.items())


@pytest.mark.slow
@pytest.mark.parametrize("make", [lane_trainer, sequential_trainer])
def test_a_frozen_factor_is_given_no_term(tiny_base: BaseModel, make: Any) -> None:
    policy = attach_adapter(
        tiny_base.model,
        lora_rank=2,
        lora_alpha=4,
        target_modules="all-linear",
        seed=0,
        freeze_a=True,
    )
    adapters = own_adapters(policy, sorted(UNEQUAL))
    corrections = corrections_like(adapters)
    found = train(
        make(policy, OBJECTIVE, steps=SGD),
        adapters,
        learning_rate=0.1,
        proximal_mu=0.5,
        corrections=corrections,
    )
    for client, state in adapters.items():
        for key, value in state.items():
            assert torch.equal(found[client].adapter[key], value) == ("lora_A" in key)


def test_the_pull_is_back_to_the_start_of_each_lane() -> None:
    values = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    corrections = [None, torch.tensor([9.0, 0.5, 0.25])]
    terms = LaneTerms.of(values, [0.0, 2.0], corrections)
    values += torch.tensor([[1.0], [10.0]])
    gradients = torch.zeros(2, 2)
    terms.add_to(gradients, values[:, 1:], first=1)
    # Two times ten, and the correction without the frozen first value.
    assert gradients.tolist() == [[0.0, 0.0], [20.5, 20.25]]
    # A lane that has no step left is cut off behind the others.
    gradients = torch.zeros(1, 2)
    terms.add_to(gradients, values[:1, 1:], first=1)
    assert gradients.tolist() == [[0.0, 0.0]]


def test_terms_count_as_memory_of_a_lane(policy: PeftModel) -> None:
    decoder = lane_trainer(policy, OBJECTIVE)._decoder
    plain, both = (
        PassCost.of(decoder, longest_group=9, checkpoint=False, num_terms=n).per_lane
        for n in (0, 2)
    )
    assert both - plain == 2 * 4 * decoder.layout.num_values
