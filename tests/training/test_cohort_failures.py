"""Clients of a cohort that fail, beside others that are not touched by it."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest
import torch
from peft import PeftModel

from helpers.tiny_cohorts import (
    OBJECTIVES,
    UNEQUAL,
    assert_close,
    lane_trainer,
    sequential_trainer,
    some_steps,
    train,
)
from pkgllm.errors import FederationError, ModelError
from pkgllm.lm.adapter import AdapterState
from pkgllm.objectives.objective import Objective
from pkgllm.prompts.groups import Group
from pkgllm.training.local import LocalSteps, TrainedClient

pytest_plugins = ["helpers.cohort_fixtures"]


def both(
    policy: PeftModel,
    objective: Objective,
    groups: Mapping[str, Sequence[Group]],
    adapters: Mapping[str, AdapterState],
    steps: LocalSteps | None = None,
) -> tuple[dict[str, TrainedClient | Exception], dict[str, TrainedClient | Exception]]:
    """What the engines return in round 4, lanes first."""
    lanes, alone = (
        make(policy, objective, groups, steps=steps)(adapters, round_num=4, learning_rate=1e-3)
        for make in (lane_trainer, sequential_trainer)
    )
    return lanes, alone


def assert_only_these_failed(
    found: Mapping[str, TrainedClient | Exception],
    expected: Mapping[str, TrainedClient | Exception],
    healthy: Mapping[str, TrainedClient],
    failed: Sequence[str],
) -> None:
    """Both engines give the same errors, and the others train as they do without the failed."""
    assert list(found) == list(expected)
    assert {c for c, done in found.items() if isinstance(done, Exception)} == set(failed)
    for client in failed:
        assert type(found[client]) is type(expected[client])
        assert str(found[client]) == str(expected[client])
    trained = {c: done for c, done in found.items() if isinstance(done, TrainedClient)}
    assert_close(trained, healthy, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("objective", ["kto", "sft"])
def test_a_client_whose_loss_is_not_finite_fails_alone(
    policy: PeftModel, adapters: Mapping[str, AdapterState], objective: str, value: float
) -> None:
    spoiled = {key: tensor.clone() for key, tensor in adapters["p3"].items()}
    next(iter(spoiled.values())).fill_(value)
    others = {client: state for client, state in adapters.items() if client != "p3"}
    wanted = OBJECTIVES[objective]
    found, expected = both(policy, wanted, UNEQUAL, {**adapters, "p3": spoiled})
    healthy = train(lane_trainer(policy, wanted), others, round_num=4)
    assert_only_these_failed(found, expected, healthy, ["p3"])
    assert isinstance(found["p3"], FederationError)
    assert str(found["p3"]) == (
        "client 'p3', round 4: the loss must be finite, got nan; lower training.learning_rate"
    )


@pytest.mark.slow
@pytest.mark.usefixtures("batched")
def test_a_client_whose_loss_is_not_finite_fails_alone_where_lanes_are_batched(
    policy: PeftModel, adapters: Mapping[str, AdapterState]
) -> None:
    spoiled = {key: torch.full_like(value, torch.nan) for key, value in adapters["p3"].items()}
    others = {client: state for client, state in adapters.items() if client != "p3"}
    found, expected = both(policy, OBJECTIVES["kto"], UNEQUAL, {**adapters, "p3": spoiled})
    healthy = train(lane_trainer(policy, OBJECTIVES["kto"]), others, round_num=4)
    assert_only_these_failed(found, expected, healthy, ["p3"])


@pytest.mark.slow
@pytest.mark.parametrize("num_lonely", [1, 3])
def test_a_client_whose_objective_raises_fails_alone(
    policy: PeftModel, adapters: Mapping[str, AdapterState], num_lonely: int
) -> None:
    # With one of three groups the first step may still go well.
    lonely = [replace(group, mismatched=()) for group in UNEQUAL["p3"][:num_lonely]]
    groups = {**UNEQUAL, "p3": (*lonely, *UNEQUAL["p3"][num_lonely:])}
    others = {client: state for client, state in adapters.items() if client != "p3"}
    steps = some_steps(groups_per_step=1)
    found, expected = both(policy, OBJECTIVES["kto"], groups, adapters, steps=steps)
    healthy = train(
        lane_trainer(policy, OBJECTIVES["kto"], groups, steps=steps), others, round_num=4
    )
    assert_only_these_failed(found, expected, healthy, ["p3"])
    assert isinstance(found["p3"], ValueError)
    assert "at least one mismatched pair" in str(found["p3"])


@pytest.mark.slow
def test_a_client_without_groups_or_with_a_foreign_adapter_fails_alone(
    policy: PeftModel, adapters: Mapping[str, AdapterState]
) -> None:
    foreign = {key: value for key, value in adapters["p2"].items() if "layers.0" in key}
    asked = {"stranger": adapters["p1"], **adapters, "p2": foreign}
    found, expected = both(policy, OBJECTIVES["kto"], UNEQUAL, asked)
    others = {client: state for client, state in adapters.items() if client != "p2"}
    healthy = train(lane_trainer(policy, OBJECTIVES["kto"]), others, round_num=4)
    assert list(found) == list(expected) == list(asked)
    assert isinstance(found["stranger"], KeyError)
    assert isinstance(expected["stranger"], KeyError)
    assert isinstance(found["p2"], ModelError)
    assert isinstance(expected["p2"], ModelError)
    assert "the adapter does not fit the base model" in str(found["p2"])
    assert_close(
        {c: d for c, d in found.items() if isinstance(d, TrainedClient)}, healthy, atol=1e-6
    )


@pytest.mark.slow
def test_nobody_is_left_where_all_fail(
    policy: PeftModel, adapters: Mapping[str, AdapterState]
) -> None:
    spoiled = {
        client: {key: torch.full_like(value, torch.nan) for key, value in state.items()}
        for client, state in adapters.items()
    }
    found, expected = both(policy, OBJECTIVES["kto"], UNEQUAL, spoiled)
    assert_only_these_failed(found, expected, {}, sorted(UNEQUAL))
