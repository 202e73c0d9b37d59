"""Clients that fail in every way there is, and a server that goes on without them."""

import json
from collections.abc import Mapping
from itertools import cycle
from typing import Any

import pytest
import torch

from helpers.one_process import federate
from helpers.quadratic_clients import QuadraticClients, adapter_at, entries, same_bytes
from pkgllm.errors import BudgetError, FederationError
from pkgllm.federation.rounds import RoundRecord
from pkgllm.lm.adapter import AdapterState
from pkgllm.training.local import TrainedClient

TARGETS = {f"p{index:02}": float(index) for index in range(20)}
THREE = {"a": 1.0, "b": 2.0, "c": 3.0}
FAULTS: dict[str, tuple[AdapterState | Exception, str]] = {
    "raises": (ZeroDivisionError("a secret"), "raised ZeroDivisionError"),
    "NaN": (adapter_at(float("nan")), "holds NaN or infinity"),
    "infinity": (adapter_at(float("-inf")), "holds NaN or infinity"),
    "a key too few": ({"layer.lora_A": torch.zeros(2, 3)}, "1 keys missing and 0 foreign"),
    "a foreign key": (adapter_at(0.0) | {"x": torch.zeros(1)}, "0 keys missing and 1 foreign"),
    "another shape": (
        {"layer.lora_A": torch.zeros(3, 2), "layer.lora_B": torch.zeros(3, 2)},
        "must be float32 of shape (2, 3), got float32 of shape (3, 2)",
    ),
    "empty": ({}, "2 keys missing and 0 foreign"),
}


def faulty(num: int) -> dict[str, tuple[AdapterState | Exception, str]]:
    """Every third client or so fails, each in another way."""
    return dict(zip(list(TARGETS)[1::3][:num], cycle(FAULTS.values()), strict=False))


def run(
    faults: Mapping[str, AdapterState | Exception], *, min_updates: int = 1
) -> tuple[AdapterState, list[RoundRecord]]:
    seen: list[RoundRecord] = []
    clients = QuadraticClients(TARGETS, faults=faults)
    adapter = federate(
        trainer=clients,
        clients=list(TARGETS),
        initial=adapter_at(0.0),
        num_rounds=3,
        cohort_size=len(TARGETS),
        seed=1,
        learning_rate=lambda round_num: 0.5,
        min_updates=min_updates,
        on_round=seen.append,
    )
    return adapter, seen


def test_three_in_ten_that_fail_are_named_and_never_averaged() -> None:
    faults = faulty(6)
    assert len(faults) == 0.3 * len(TARGETS)
    adapter, seen = run({client: fault for client, (fault, _) in faults.items()})
    good = [TARGETS[client] for client in TARGETS if client not in faults]
    # Each round goes half of the way that is left to the mean of the good clients' points.
    mean = sum(good) / len(good)
    assert list(entries(adapter)) == [pytest.approx(mean * (1 - 0.5**3), rel=1e-6)]
    for record in seen:
        assert list(record.failed) == sorted(faults)
        for client, (_, reason) in faults.items():
            assert reason in record.failed[client]
        assert "secret" not in json.dumps(dict(record.failed))
        assert len(record.cohort) == len(TARGETS)


def test_the_result_is_that_of_the_good_clients_alone() -> None:
    faults = faulty(6)
    adapter, _ = run({client: fault for client, (fault, _) in faults.items()})
    alone = federate(
        trainer=QuadraticClients(
            {client: target for client, target in TARGETS.items() if client not in faults}
        ),
        clients=[client for client in TARGETS if client not in faults],
        initial=adapter_at(0.0),
        num_rounds=3,
        cohort_size=len(TARGETS) - len(faults),
        seed=1,
        learning_rate=lambda round_num: 0.5,
    )
    assert same_bytes(adapter, alone)


def test_with_too_few_good_clients_the_round_fails_and_says_who() -> None:
    faults = {client: fault for client, (fault, _) in faulty(6).items()}
    assert run(faults, min_updates=14)[1]
    with pytest.raises(FederationError) as caught:
        run(faults, min_updates=15)
    assert str(caught.value).startswith(
        "round 1: at least 15 of 20 clients must send a usable update, 14 did; failed are p01, "
        "p04, p07, p10, p13, p16; the first reason: client p01 raised ZeroDivisionError"
    )


@pytest.mark.parametrize("wrong", [0, 21])
def test_a_minimum_that_cannot_be_met_is_refused(wrong: int) -> None:
    with pytest.raises(
        ValueError, match=f"min_updates must be from 1 to cohort_size, 20, got {wrong}"
    ):
        run({}, min_updates=wrong)


def test_a_client_that_fails_in_one_round_is_back_in_the_next() -> None:
    class Fickle(QuadraticClients):
        def __call__(
            self, adapters: Mapping[str, AdapterState], *, round_num: int, **terms: Any
        ) -> dict[str, TrainedClient | Exception]:
            found = super().__call__(adapters, round_num=round_num, **terms)
            return found | ({"b": OSError("gone")} if round_num == 1 else {})

    seen: list[RoundRecord] = []
    adapter = federate(
        trainer=Fickle({"a": 0.0, "b": 8.0}),
        clients=["a", "b"],
        initial=adapter_at(0.0),
        num_rounds=2,
        cohort_size=2,
        seed=0,
        learning_rate=lambda round_num: 1.0,
        on_round=seen.append,
    )
    assert [list(record.failed) for record in seen] == [["b"], []]
    assert entries(adapter) == {4.0}


def test_training_ends_before_the_round_for_which_the_clients_have_no_budget(
    caplog: pytest.LogCaptureFixture,
) -> None:
    adapter, seen = spend(dict.fromkeys("abc", BudgetError("a secret")), from_round=3)
    assert [record.round_num for record in seen] == [1, 2]
    assert same_bytes(adapter, seen[-1].adapter)
    (line,) = [m for m in caplog.messages if "so training ends before it" in m]
    assert line == (
        "round 3: at least 1 of 3 clients must send an update, and the privacy budgets of 3 are "
        "spent, so training ends before it"
    )


def test_some_clients_whose_budget_is_spent_are_left_out_as_others_that_fail() -> None:
    _, seen = spend({"b": BudgetError("a secret")}, from_round=2)
    assert [dict(record.failed) for record in seen] == [
        {},
        {"b": "client b raised BudgetError"},
        {"b": "client b raised BudgetError"},
        {"b": "client b raised BudgetError"},
    ]


@pytest.mark.parametrize(
    ("faults", "from_round", "error"),
    [
        # A run in which no round was done is none.
        (dict.fromkeys("abc", BudgetError()), 1, BudgetError),
        # Whoever has another fault may be back, and the run can go on then.
        ({**dict.fromkeys("ab", BudgetError()), "c": ZeroDivisionError()}, 3, FederationError),
    ],
)
def test_a_run_without_a_round_and_other_faults_are_no_end(
    faults: Mapping[str, Exception], from_round: int, error: type[Exception]
) -> None:
    with pytest.raises(error, match=f"round {from_round}: at least 1 of 3"):
        spend(faults, from_round=from_round)


def spend(
    faults: Mapping[str, Exception], *, from_round: int
) -> tuple[AdapterState, list[RoundRecord]]:
    """Train four rounds with three clients that have faults from some round on."""
    well, ill = QuadraticClients(THREE), QuadraticClients(THREE, faults=faults)
    seen: list[RoundRecord] = []

    def trainer(
        adapters: Mapping[str, AdapterState], *, round_num: int, **terms: Any
    ) -> dict[str, TrainedClient | Exception]:
        clients = well if round_num < from_round else ill
        return clients(adapters, round_num=round_num, **terms)

    adapter = federate(
        trainer=trainer,
        clients=list(THREE),
        initial=adapter_at(0.0),
        num_rounds=4,
        cohort_size=3,
        seed=1,
        learning_rate=lambda round_num: 0.5,
        on_round=seen.append,
    )
    return adapter, seen
