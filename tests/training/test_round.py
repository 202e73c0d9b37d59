"""Whole federated rounds: Flower's FedAvg over both engines gives the same adapter."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from peft import PeftModel

from helpers.one_process import federate
from helpers.tiny_cohorts import (
    OBJECTIVES,
    PUBLIC_KTO,
    UNEQUAL,
    lane_trainer,
    largest_gap,
    sequential_trainer,
    some_groups,
    some_steps,
)
from helpers.tiny_groups import a_policy
from pkgllm.federation.clients import Weighting
from pkgllm.federation.rounds import RoundRecord
from pkgllm.lm.adapter import AdapterState, adapter_state
from pkgllm.lm.base_model import load_base_model
from pkgllm.prompts.groups import Group
from pkgllm.training.local import CohortTrainer, KlBaseline, no_baseline
from pkgllm.training.public_baseline import PublicBaseline


@pytest.fixture(scope="module")
def policy(tiny_base_folder: Path) -> PeftModel:
    return a_policy(load_base_model(str(tiny_base_folder), device="cpu"))


def rounds(
    trainer: CohortTrainer,
    initial: AdapterState,
    groups: Mapping[str, Sequence[Group]],
    *,
    cohort_size: int,
    weighting: Weighting = "examples",
    baseline: KlBaseline = no_baseline,
) -> tuple[AdapterState, list[RoundRecord]]:
    records: list[RoundRecord] = []
    adapter = federate(
        trainer=trainer,
        clients=sorted(groups),
        initial=initial,
        num_rounds=3,
        cohort_size=cohort_size,
        seed=7,
        learning_rate=lambda round_num: 5e-3 / round_num,
        weighting=weighting,
        report_private_metrics=True,
        on_round=records.append,
        kl_baseline=baseline,
    )
    return adapter, records


@pytest.mark.slow
@pytest.mark.parametrize(
    ("objective", "cohort_size", "weighting"),
    [("kto with likelihood", 5, "examples"), ("sdpo", 3, "uniform")],
)
def test_both_engines_lead_to_the_same_adapter(
    policy: PeftModel, objective: str, cohort_size: int, weighting: Weighting
) -> None:
    initial, wanted = adapter_state(policy), OBJECTIVES[objective]
    steps = some_steps(weight_decay=0.01)
    (found, records), (expected, expected_records) = (
        rounds(
            make(policy, wanted, steps=steps),
            initial,
            UNEQUAL,
            cohort_size=cohort_size,
            weighting=weighting,
        )
        for make in (lane_trainer, sequential_trainer)
    )
    assert largest_gap(found, expected) <= 1e-4
    assert largest_gap(initial, expected) > 5e-3
    assert [record.cohort for record in records] == [r.cohort for r in expected_records]
    for record, other in zip(records, expected_records, strict=True):
        assert not record.failed
        assert record.metrics["loss"] == pytest.approx(other.metrics["loss"], rel=1e-4)
        assert record.update_norm == pytest.approx(other.update_norm, rel=1e-3)


@pytest.mark.slow
def test_both_engines_lead_to_the_same_adapter_with_a_baseline_of_each_round(
    policy: PeftModel,
) -> None:
    initial, steps = adapter_state(policy), some_steps(weight_decay=0.01)
    public = some_groups(4, seed=40)
    (found, records), (expected, expected_records), (without, _) = (
        rounds(
            make(policy, PUBLIC_KTO, steps=steps), initial, UNEQUAL, cohort_size=3, baseline=sent
        )
        for make, sent in (
            (lane_trainer, PublicBaseline(policy, public)),
            (sequential_trainer, PublicBaseline(policy, public)),
            (lane_trainer, lambda adapter: 0.0),
        )
    )
    assert largest_gap(found, expected) <= 1e-4
    assert largest_gap(without, expected) > 1e-3
    baselines = [record.kl_baseline for record in records]
    assert baselines == pytest.approx([r.kl_baseline for r in expected_records], rel=1e-4)
    assert all(baseline is not None and baseline > 0.1 for baseline in baselines)
    assert len(set(baselines)) == 3


@pytest.mark.slow
def test_a_client_that_fails_is_left_out_of_the_round_by_both(policy: PeftModel) -> None:
    initial = adapter_state(policy)
    (only,) = UNEQUAL["p1"]
    # KTO has nothing to estimate its baseline from.
    groups = {**UNEQUAL, "p1": (replace(only, mismatched=()),)}
    (found, records), (expected, expected_records) = (
        rounds(make(policy, OBJECTIVES["kto"], groups), initial, groups, cohort_size=5)
        for make in (lane_trainer, sequential_trainer)
    )
    assert [dict(record.failed) for record in records] == [dict(r.failed) for r in expected_records]
    assert all(list(record.failed) == ["p1"] for record in records)
    assert largest_gap(found, expected) <= 1e-4
