"""Whole runs with a privacy unit: what they write, what they refuse."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from helpers.tiny_corpus import tiny_experiment
from pkgllm.config.schema import Experiment, Federated
from pkgllm.errors import PrivacyError
from pkgllm.pipeline.evaluate import evaluate_run
from pkgllm.pipeline.train import resume, train
from pkgllm.privacy.accounting import epsilon
from pkgllm.privacy.mechanisms import Mechanism
from pkgllm.progress import Silent
from pkgllm.runs.folder import RunFolder

pytest_plugins = ["helpers.finished_runs"]

CLIENTS = 10
"""Of twelve, two are unseen in training."""


def private(data: Path, base: Path, **changes: Any) -> Experiment:
    privacy = {"name": "client", "delta": 0.01, "clip_norm": 0.1, "noise_multiplier": 1.0}
    mode = {"name": "federated", "rounds": 4, "cohort_size": 2}
    return tiny_experiment(data, base, mode=mode, privacy=privacy | changes)


@pytest.mark.slow
def test_a_private_run_says_what_it_promises_and_nothing_else(
    data: Path, tiny_base_folder: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    report = train(private(data, tiny_base_folder), run, Silent())
    expected = epsilon([Mechanism(1.0, 2 / CLIENTS, 4)], delta=0.01)
    promised = json.loads((run / "results.json").read_text())["privacy"]
    assert promised["epsilon"] == pytest.approx(expected)
    assert (promised["unit"], promised["delta"], promised["accountant"]) == ("client", 0.01, "prv")
    assert promised["neighboring_relation"] == "add_or_remove_one"
    (note,) = [note for note in report.notes if note.startswith("Privacy: ")]
    assert "unit client, add or remove one; accountant prv." in note
    rounds = RunFolder.open(run).read_metrics()
    assert [set(record) for record in rounds] == 4 * [
        {"round_num", "learning_rate", "update_norm", "epsilon"}
    ]
    spent = [record["epsilon"] for record in rounds]
    assert spent == sorted(spent)  # type: ignore[type-var]
    assert spent[-1] == pytest.approx(expected)
    assert (run / "privacy_ledger.jsonl").stat().st_mode & 0o777 == 0o600
    (again,) = evaluate_run(run, Silent(), output=tmp_path / "again")
    assert again.notes == report.notes


@pytest.mark.slow
def test_two_runs_of_one_seed_share_no_noise(
    data: Path, tiny_base_folder: Path, tmp_path: Path
) -> None:
    config = private(data, tiny_base_folder)
    for name in ("one", "other"):
        train(config, tmp_path / name, Silent())
    one, other = (
        (tmp_path / name / "adapter" / "adapter_model.safetensors").read_bytes()
        for name in ("one", "other")
    )
    assert one != other


@pytest.mark.slow
def test_fixed_noise_repeats_itself_and_marks_the_run(
    data: Path, tiny_base_folder: Path, tmp_path: Path
) -> None:
    config = private(data, tiny_base_folder)
    reports = [
        train(config, tmp_path / name, Silent(), insecure_fixed_noise=True)
        for name in ("one", "other")
    ]
    one, other = (
        (tmp_path / name / "adapter" / "adapter_model.safetensors").read_bytes()
        for name in ("one", "other")
    )
    assert one == other
    for report in reports:
        assert any(
            note.startswith("Privacy: not private, because its noise comes from the seed")
            for note in report.notes
        )


@pytest.mark.slow
def test_the_budget_ends_training_and_the_run_says_what_was_spent(
    data: Path, tiny_base_folder: Path, tmp_path: Path
) -> None:
    price = epsilon([Mechanism(1.0, 2 / CLIENTS, 2)], delta=0.01)
    config = private(data, tiny_base_folder, max_epsilon=price * 1.001)
    train(config, tmp_path / "run", Silent())
    records = RunFolder.open(tmp_path / "run").read_metrics()
    assert [record["round_num"] for record in records] == [1, 2]
    promised = json.loads((tmp_path / "run" / "privacy.json").read_text())
    assert promised["epsilon"] == pytest.approx(price)


def local(data: Path, base: Path, **changes: Any) -> Experiment:
    privacy = {"name": "client", "delta": 0.01, "clip_norm": 0.1, "noise_multiplier": 1.0}
    mode = {"name": "federated", "rounds": 4, "cohort_size": 3, "min_updates": 2}
    return tiny_experiment(
        data, base, mode=mode, privacy=privacy | {"mechanism": "local"} | changes
    )


@pytest.mark.slow
def test_a_run_with_local_noise_says_what_it_promises_to_whom(
    data: Path, tiny_base_folder: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    config = local(data, tiny_base_folder)
    report = train(config, run, Silent())
    ledger = [json.loads(line) for line in (run / "privacy_ledger.jsonl").open()]
    metrics = RunFolder.open(run).read_metrics()
    drawn = [(m["round_num"], client) for m in metrics for client in m["cohort"]]  # type: ignore[attr-defined]
    assert [(entry["round_num"], entry["client"]) for entry in ledger] == drawn
    assert {entry["neighboring_relation"] for entry in ledger} == {"zero_out_one"}
    assert {(e["noise_multiplier"], e["sampling_probability"]) for e in ledger} == {(1.0, 1.0)}
    times = max(Counter(client for _, client in drawn).values())
    promised = json.loads((run / "results.json").read_text())["privacy"]
    assert promised["epsilon"] == pytest.approx(epsilon([Mechanism(1.0, 1.0, times)], delta=0.01))
    assert promised["share_epsilon"] == pytest.approx(
        epsilon([Mechanism(1.0 / 2**0.5, 1.0, times)], delta=0.01)
    )
    assert (promised["neighboring_relation"], promised["min_shares"]) == ("zero_out_one", 2)
    (note,) = [note for note in report.notes if note.startswith("Privacy: ")]
    assert "for whoever sees only sums of at least 2 shares of the noise, and epsilon" in note
    assert "for the server, which sees single shares; unit client, zero out one" in note
    for record in metrics:
        assert set(record) == {
            *("round_num", "learning_rate", "update_norm", "epsilon", "share_epsilon"),
            *("cohort", "failed", "bytes_down", "bytes_up"),
        }
    assert metrics[-1]["share_epsilon"] == pytest.approx(promised["share_epsilon"])
    (again,) = evaluate_run(run, Silent(), output=tmp_path / "again")
    assert again.notes == report.notes


@pytest.mark.slow
def test_where_one_share_is_all_of_the_noise_the_server_has_no_better_view(
    data: Path, tiny_base_folder: Path, tmp_path: Path
) -> None:
    config = private(data, tiny_base_folder, mechanism="local")
    assert isinstance(config.mode, Federated)
    assert config.mode.min_updates == 1
    report = train(config, tmp_path / "run", Silent())
    promised = json.loads((tmp_path / "run" / "privacy.json").read_text())
    assert promised["epsilon"] == promised["share_epsilon"]
    assert any("for everybody, the server included;" in note for note in report.notes)


@pytest.mark.slow
def test_local_noise_takes_the_target_of_the_client_drawn_most_often(
    data: Path, tiny_base_folder: Path, tmp_path: Path
) -> None:
    config = local(data, tiny_base_folder, noise_multiplier=None, target_epsilon=5.0)
    train(config, tmp_path / "run", Silent())
    promised = json.loads((tmp_path / "run" / "privacy.json").read_text())
    assert 4.9 < promised["epsilon"] <= 5.0
    assert len(RunFolder.open(tmp_path / "run").read_metrics()) == 4


@pytest.mark.slow
def test_the_budget_of_local_noise_ends_before_somebody_would_spend_too_much(
    data: Path, tiny_base_folder: Path, tmp_path: Path
) -> None:
    config = local(
        data, tiny_base_folder, max_epsilon=1.001 * epsilon([Mechanism(1, 1)], delta=0.01)
    )
    run = tmp_path / "run"
    train(config, run, Silent())
    cohorts = [set(m["cohort"]) for m in RunFolder.open(run).read_metrics()]  # type: ignore[call-overload]
    assert 0 < len(cohorts) < 4
    assert sum(map(len, cohorts)) == len(set().union(*cohorts))


@pytest.mark.slow
def test_fixed_local_noise_repeats_itself_and_marks_the_run(
    data: Path, tiny_base_folder: Path, tmp_path: Path
) -> None:
    config = local(data, tiny_base_folder)
    made = []
    for name, insecure in (("one", True), ("other", True), ("third", False)):
        report = train(config, tmp_path / name, Silent(), insecure_fixed_noise=insecure)
        made.append((tmp_path / name / "adapter" / "adapter_model.safetensors").read_bytes())
        marked = any(note.startswith("Privacy: not private, because its") for note in report.notes)
        assert marked == insecure
    assert made[0] == made[1] != made[2]


@pytest.mark.slow
def test_a_round_of_shares_that_is_done_again_is_charged_again(
    data: Path, tiny_base_folder: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    unfinished(local(data, tiny_base_folder), run)
    resume(run, Silent())
    ledger = [json.loads(line) for line in (run / "privacy_ledger.jsonl").open()]
    assert [entry["round_num"] for entry in ledger] == 3 * [1] + 3 * [2] + 3 * [3] + 6 * [4]
    times = max(Counter(entry["client"] for entry in ledger).values())
    promised = json.loads((run / "privacy.json").read_text())
    assert promised["epsilon"] == pytest.approx(epsilon([Mechanism(1.0, 1.0, times)], delta=0.01))


@pytest.mark.slow
def test_scaffold_goes_with_local_noise(data: Path, tiny_base_folder: Path, tmp_path: Path) -> None:
    config = local(data, tiny_base_folder)
    mode = config.mode.model_dump() | {"strategy": {"name": "scaffold"}}
    training = config.training.model_dump() | {"optimizer": "sgd"}
    whole = config.model_dump() | {"mode": mode, "training": training}
    run = tmp_path / "run"
    train(Experiment.model_validate(whole), run, Silent())
    assert [record["failed"] for record in RunFolder.open(run).read_metrics()] == [{}] * 4


def unfinished(config: Experiment, run: Path, *, insecure_fixed_noise: bool = False) -> None:
    """Leave a run as a kill after its third round would."""
    train(config, run, Silent(), keep=3, insecure_fixed_noise=insecure_fixed_noise)
    for name in ("adapter", "predictions.jsonl", "results.json", "results.md", "privacy.json"):
        path = run / name
        if path.is_dir():
            for file in path.iterdir():
                file.unlink()
            path.rmdir()
        else:
            path.unlink()
    (run / "checkpoints" / "000004.safetensors").unlink()


@pytest.mark.slow
def test_a_round_that_is_done_again_is_charged_again(
    data: Path, tiny_base_folder: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    unfinished(private(data, tiny_base_folder), run)
    resume(run, Silent())
    ledger = [json.loads(line) for line in (run / "privacy_ledger.jsonl").open()]
    assert [entry["round_num"] for entry in ledger] == [1, 2, 3, 4, 4]
    promised = json.loads((run / "privacy.json").read_text())
    assert promised["epsilon"] == pytest.approx(
        epsilon([Mechanism(1.0, 2 / CLIENTS, 5)], delta=0.01)
    )


@pytest.mark.slow
def test_a_run_with_fixed_noise_keeps_its_mark_when_it_goes_on(
    data: Path, tiny_base_folder: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    unfinished(private(data, tiny_base_folder), run, insecure_fixed_noise=True)
    report = resume(run, Silent())
    assert any(note.startswith("Privacy: not private") for note in report.notes)


@pytest.mark.slow
@pytest.mark.parametrize("harm", ["missing", "edited", "cut"])
def test_a_ledger_that_was_touched_is_refused_and_never_begun_anew(
    data: Path, tiny_base_folder: Path, tmp_path: Path, harm: str
) -> None:
    run = tmp_path / "run"
    unfinished(private(data, tiny_base_folder), run)
    ledger = run / "privacy_ledger.jsonl"
    lines = ledger.read_text().splitlines(keepends=True)
    if harm == "missing":
        ledger.unlink()
    elif harm == "edited":
        edited = lines[0].replace('"noise_multiplier":1.0', '"noise_multiplier":9.0')
        ledger.write_text("".join([edited, *lines[1:]]))
    else:
        ledger.write_text("".join(lines[:2]))
    with pytest.raises(PrivacyError, match="the budget is never counted from 0 again"):
        resume(run, Silent())
    assert not (run / "adapter").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mode", "spenders"),
    [
        ({"name": "federated", "rounds": 2, "cohort_size": 3}, 6),
        ({"name": "centralized", "rounds": 2, "cohort_size": 2}, 2),
    ],
)
def test_a_run_of_the_unit_example_charges_who_trained(
    data: Path, tiny_base_folder: Path, tmp_path: Path, mode: dict[str, Any], spenders: int
) -> None:
    config = tiny_experiment(
        data,
        tiny_base_folder,
        mode=mode,
        objective={"name": "apo_zero"},
        privacy={
            "name": "example",
            "delta": 0.01,
            "clip_norm": 0.1,
            "noise_multiplier": 2.0,
            "expected_batch_size": 1,
        },
    )
    run = tmp_path / "run"
    report = train(config, run, Silent())
    ledger = [json.loads(line) for line in (run / "privacy_ledger.jsonl").open()]
    assert len(ledger) == spenders
    assert {entry["unit"] for entry in ledger} == {"example"}
    promised = json.loads((run / "results.json").read_text())["privacy"]
    assert promised["epsilon"] < promised["fact_epsilon"]
    assert any("of one fact, which enters at most 2 groups" in note for note in report.notes)
    assert not any("loss" in record for record in RunFolder.open(run).read_metrics())


@pytest.mark.slow
def test_the_unit_example_ends_before_a_client_would_spend_too_much(
    data: Path, tiny_base_folder: Path, tmp_path: Path
) -> None:
    def config(**budget: float) -> Experiment:
        return tiny_experiment(
            data,
            tiny_base_folder,
            mode={"name": "federated", "rounds": 4, "cohort_size": CLIENTS},
            objective={"name": "apo_zero"},
            privacy={
                "name": "example",
                "delta": 0.01,
                "clip_norm": 0.1,
                "noise_multiplier": 2.0,
                "expected_batch_size": 1,
                **budget,
            },
        )

    train(config(), tmp_path / "free", Silent())
    spent = [record["epsilon"] for record in RunFolder.open(tmp_path / "free").read_metrics()]
    assert spent == sorted(spent)  # type: ignore[type-var]
    third = spent[2]
    assert isinstance(third, float)
    train(config(max_epsilon=1.0001 * third), tmp_path / "bound", Silent())
    assert len(RunFolder.open(tmp_path / "bound").read_metrics()) == 3
