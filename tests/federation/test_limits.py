"""What one client's update may count, however it lies about its weight or its length."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from helpers.one_process import federate
from helpers.quadratic_clients import QuadraticClients, adapter_at, entries, same_bytes
from pkgllm.federation.algorithm import Algorithm
from pkgllm.federation.algorithms.fedavg import FedAvg
from pkgllm.federation.algorithms.fedtrimmedavg import FedTrimmedAvg
from pkgllm.federation.algorithms.krum import Krum
from pkgllm.federation.limits import UpdateLimits
from pkgllm.federation.messages import Update
from pkgllm.federation.rounds import RoundRecord
from pkgllm.lm.adapter import AdapterState

BEFORE = adapter_at(0.0)
BY_LENGTH = UpdateLimits(max_norm_ratio=5.0)


def updates(*steps: float, weights: tuple[float, ...] = ()) -> dict[str, Update]:
    return {
        f"c{index}": Update(
            adapter=adapter_at(step), weight=weights[index] if weights else float(index + 1)
        )
        for index, step in enumerate(steps)
    }


@given(
    st.lists(st.floats(0.5, 2.0), min_size=3, max_size=9),
    st.lists(st.floats(12.0, 1e19), max_size=4),
    st.sampled_from([1.0, -1.0]),
)
def test_fewer_than_half_cannot_enter_with_longer_updates(
    honest: list[float], hostile: list[float], sign: float
) -> None:
    hostile = hostile[: (len(honest) - 1) // 2]
    kept, faults = BY_LENGTH.apply(updates(*honest, *(sign * step for step in hostile)), BEFORE)
    assert list(kept) == [f"c{index}" for index in range(len(honest))]
    assert sorted(faults) == sorted(f"c{len(honest) + index}" for index in range(len(hostile)))


@pytest.mark.parametrize(
    ("steps", "left_out"),
    [
        ((1.0, 1.0, 1.0, 5.1), {"c3"}),
        ((1.0, 1.0, 1.0, 4.9), set()),
        ((1.0, -6.0, 1.0), {"c1"}),
        # Clients that learnt nothing say nothing of how long an update is.
        ((0.0, 0.0, 0.0, 1.0, 1.0), set()),
        ((0.0, 0.0, 0.0), set()),
        ((3e38, 1.0, 1.0), {"c0"}),
        ((7.0,), set()),
        ((), set()),
    ],
)
def test_lengths_beside_the_median(steps: tuple[float, ...], left_out: set[str]) -> None:
    kept, faults = BY_LENGTH.apply(updates(*steps), BEFORE)
    assert set(faults) == left_out
    assert set(kept) == set(updates(*steps)) - left_out


def test_a_fixed_bound_holds_for_each_alone() -> None:
    limits = UpdateLimits(max_norm=2 * math.sqrt(12))
    kept, faults = limits.apply(updates(1.9, 2.1, 9.0), BEFORE)
    assert set(kept) == {"c0"}
    assert faults["c1"] == "update of length 7.27, the bound is 6.93"


@given(st.lists(st.floats(5e-324, 1.7e308), min_size=1, max_size=9))
def test_under_equal_weights_no_claim_counts(weights: list[float]) -> None:
    claimed = updates(*[1.0] * len(weights), weights=tuple(weights))
    kept, _ = UpdateLimits().apply(claimed, BEFORE)
    assert {update.weight for update in kept.values()} == {1.0}


def test_a_weight_counts_at_most_so_many_medians() -> None:
    limits = UpdateLimits(equal_weights=False, max_weight_ratio=10.0)
    claimed = updates(*[1.0] * 5, weights=(2.0, 1e9, 3.0, 4.0, 30.0))
    kept, _ = limits.apply(claimed, BEFORE)
    assert [update.weight for update in kept.values()] == [2.0, 40.0, 3.0, 4.0, 30.0]


def one_round(
    clients: QuadraticClients, algorithm: Algorithm, **changes: Any
) -> tuple[AdapterState, RoundRecord]:
    seen: list[RoundRecord] = []
    adapter = federate(
        trainer=clients,
        clients=list(clients.targets),
        algorithm=algorithm,
        initial=adapter_at(0.0),
        num_rounds=1,
        cohort_size=len(clients.targets),
        seed=0,
        learning_rate=lambda round_num: 1.0,
        on_round=seen.append,
        **changes,
    )
    return adapter, seen[0]


TEN = {f"p{index}": float(index + 1) for index in range(10)}


@pytest.mark.parametrize(
    ("algorithm", "num_failed", "aggregated"),
    [
        (Krum(num_malicious=3), 1, True),
        (Krum(num_malicious=3), 2, False),
        (Krum(num_malicious=2), 3, True),
        (FedTrimmedAvg(trimmed_share=0.3), 3, True),
        (FedTrimmedAvg(trimmed_share=0.3), 4, False),
        (FedAvg(), 9, True),
    ],
)
def test_a_rule_holds_for_who_came(algorithm: Algorithm, num_failed: int, aggregated: bool) -> None:
    faults: dict[str, AdapterState | Exception] = {
        client: OSError("gone") for client in list(TEN)[:num_failed]
    }
    adapter, record = one_round(QuadraticClients(TEN, faults=faults), algorithm)
    assert (record.not_aggregated is None) == aggregated
    assert same_bytes(adapter, adapter_at(0.0)) != aggregated
    if not aggregated:
        least = algorithm.least_updates(10)
        assert record.not_aggregated == (
            f"{algorithm.name} needs {least} usable updates, got {10 - num_failed}"
        )


def test_the_trimmed_mean_leaves_out_as_many_where_some_failed() -> None:
    # Of 10 clients 3 lie; 2 others fail. A share of 0.3 of the 8 that came would be 2.
    faults: dict[str, AdapterState | Exception] = {
        **dict.fromkeys(("p0", "p1"), OSError("gone")),
        **dict.fromkeys(("p7", "p8", "p9"), adapter_at(1e6)),
    }
    adapter, _ = one_round(QuadraticClients(TEN, faults=faults), FedTrimmedAvg(trimmed_share=0.3))
    assert entries(adapter) == {(6.0 + 7.0) / 2}


def test_what_is_not_finite_is_never_kept() -> None:
    # Each update is finite, and their sum is not.
    huge: Callable[[], AdapterState] = lambda: adapter_at(3e38)  # noqa: E731
    faults: dict[str, AdapterState | Exception] = {client: huge() for client in TEN}

    class Sum(FedAvg):
        def step(self, state, adapter, mean, facts):  # type: ignore[no-untyped-def]
            return state, {key: 10 * value for key, value in mean.items()}

    adapter, record = one_round(QuadraticClients(TEN, faults=faults), Sum())
    assert record.not_aggregated == "the aggregate holds NaN or infinity"
    assert same_bytes(adapter, adapter_at(0.0))
    assert record.update_norm == 0.0


def test_one_huge_weight_and_one_huge_update_change_nothing() -> None:
    honest = {client: target for client, target in TEN.items() if client != "p9"}
    expected, _ = one_round(QuadraticClients(honest), FedAvg())
    faults: dict[str, AdapterState | Exception] = {"p9": adapter_at(1e30)}
    limits = UpdateLimits(max_norm_ratio=5.0)
    adapter, record = one_round(QuadraticClients(TEN, faults=faults), FedAvg(), limits=limits)
    assert same_bytes(adapter, expected)
    assert list(record.failed) == ["p9"]
    assert record.weights == pytest.approx(dict.fromkeys(honest, 1 / 9))


def test_limits_that_nobody_meets_change_no_bit() -> None:
    limits = UpdateLimits(max_norm=1e6, max_norm_ratio=5.0)
    with_limits, _ = one_round(QuadraticClients(TEN), FedAvg(), limits=limits)
    assert same_bytes(with_limits, one_round(QuadraticClients(TEN), FedAvg())[0])
    assert torch.isfinite(with_limits["layer.lora_A"]).all()
