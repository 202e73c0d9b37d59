"""A table with two runs over the tiny corpus: whole, stopped, gone on with, and tuned."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from helpers.run_files import read_json
from helpers.tiny_corpus import tiny_experiment
from helpers.tiny_studies import write_table
from pkgllm.config.load import dump_config
from pkgllm.errors import ConfigError, StoppedError
from pkgllm.studies import run
from pkgllm.studies.sweep import reproduce_table
from pkgllm.studies.table_plan import TablePlan

pytest_plugins = ["helpers.finished_runs"]

MakePlan = Callable[..., TablePlan]
RATES = {rate: [f"training.learning_rate={rate}"] for rate in (0.001, 0.004)}


@pytest.fixture
def make_plan(tmp_path: Path, data: Path, tiny_base_folder: Path) -> MakePlan:
    (tmp_path / "base.yaml").write_text(dump_config(tiny_experiment(data, tiny_base_folder)))
    base = str(tmp_path / "base.yaml")

    def make(**changes: Any) -> TablePlan:
        rows = [
            {
                "name": "Fed",
                "config": base,
                "set": ["evaluation.baselines.names=[popularity, ease]"],
                "grid": RATES,
                "set_when_tuning": ["evaluation.max_clients=2"],
            },
            {
                "name": "Local",
                "config": base,
                "set": ["mode={name: local, rounds: 1}", *changes.pop("local", ())],
            },
            {
                "name": "EASE",
                "of": "Fed",
                "model": "ease",
                "grid": {"a": ["evaluation.baselines.l2=1"], "b": ["evaluation.baselines.l2=7"]},
            },
        ]
        return write_table(tmp_path, rows, {"Fed": {"0.001": 0.1, "0.004": 0.2}}, reference="Fed")

    return make


@pytest.mark.slow
def test_a_table_is_stopped_gone_on_with_and_finished(
    make_plan: MakePlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, lines = tmp_path / "out", list[str]()
    plan = make_plan(local=["mode.rounds=1", "clients.min_liked=1000"])
    result = reproduce_table(plan, [7], output, log=lines.append)
    results, failures = result.summary, result.failures
    assert list(failures) == ["rows/local/seed7"]
    assert str(result.failed()).startswith("1 of 2 runs failed, rows/local/seed7; ")
    assert lines[:2] == ["run 1/2: rows/fed/seed7", "run 2/2: rows/local/seed7"]
    assert [row["metrics"] is None for row in results["rows"]] == [False, True, False]
    assert results["rows"][1]["reason"] == failures["rows/local/seed7"]
    config = yaml.safe_load((output / "rows/fed/seed7/config.yaml").read_text())
    # The recorded winner; for EASE none is recorded.
    assert config["training"]["learning_rate"] == 0.004
    assert config["seed"] == 7
    assert config["evaluation"]["max_clients"] is None
    before = (output / "rows/fed/seed7/predictions.jsonl").read_bytes()

    (output / "rows/local/seed7").mkdir(exist_ok=True)
    (output / "rows/local/seed7/config.yaml").write_text(
        (output / "rows/fed/seed7/config.yaml").read_text()
    )
    with pytest.raises(ConfigError, match=r"rows/local/seed7: must be a run of this table"):
        reproduce_table(plan, [7], output)
    (output / "rows/local/seed7/config.yaml").unlink()

    lines.clear()
    result = reproduce_table(make_plan(), [7], output, log=lines.append)
    results = result.summary
    assert result.failures == {}
    assert lines == [
        "run 1/2: rows/fed/seed7, finished already",
        "run 2/2: rows/local/seed7",
    ]
    assert (output / "rows/fed/seed7/predictions.jsonl").read_bytes() == before
    assert read_json(output / "results.json") == json.loads(json.dumps(results))
    written = (output / "results.md").read_text()
    assert "| 0.001: .1000; 0.004: .2000; with evaluation.max_clients=2 | training." in written
    assert "| none yet, of a, b | - |" in written
    for piece in ("## T: 3 of 3 rows", "| EASE |", "P@10", "Long tail", "Difference from Fed"):
        assert piece in written
    fed = read_json(output / "rows/fed/seed7/results.json")
    for row, model in (("Fed", "tuned"), ("EASE", "ease")):
        measured = next(r for r in results["rows"] if r["name"] == row)
        expected = fed["models"][model]["mrr"]
        mrr = {key: measured["metrics"]["mrr"][key] for key in ("value", "low", "high")}
        assert mrr == pytest.approx(expected)
    monkeypatch.setattr(run, "after_this_round", Asked)
    with pytest.raises(StoppedError, match=r"stopped at run 1/2: rows/fed/seed8; the same"):
        reproduce_table(make_plan(), [7, 8], output)
    # What is finished stands in the results all the same.
    stopped = read_json(output / "results.json")
    assert stopped["seeds"] == [7, 8]
    assert [row["seeds"] for row in stopped["rows"]] == [[7]] * 3


class Asked:
    """Somebody who asks to stop from the beginning."""

    def __init__(self, warn: Callable[[], None]) -> None: ...

    def __enter__(self) -> Callable[[], bool]:
        return lambda: True

    def __exit__(self, *details: object) -> None: ...


@pytest.mark.slow
def test_tuning_tries_every_setting_on_validation_and_takes_the_best(
    make_plan: MakePlan, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    results = reproduce_table(make_plan(), [7], output, with_tuning=True).summary
    tuning = read_json(output / "tuning.json")
    assert {row: list(values) for row, values in tuning.items()} == {
        "Fed": ["0.001", "0.004"],
        "EASE": ["a", "b"],
    }
    for rate, mrr in tuning["Fed"].items():
        trial = output / "tuning/fed" / rate
        config = yaml.safe_load((trial / "config.yaml").read_text())["evaluation"]
        assert (config["part"], config["max_clients"]) == ("validation", 2)
        assert read_json(trial / "results.json")["clients"] == 2
        assert read_json(trial / "results.json")["models"]["tuned"]["mrr"]["value"] == mrr
    # A baseline that is tried without a run scores as it does in one.
    config = yaml.safe_load((output / "rows/fed/seed7/config.yaml").read_text())
    winner = max(tuning["EASE"], key=tuning["EASE"].__getitem__)
    ranked = {scorer["name"]: scorer for scorer in config["evaluation"]["baselines"]}
    assert ranked["ease"]["l2"] == {"a": 1.0, "b": 7.0}[winner]
    assert results["rows"][2]["tried"] == tuning["EASE"]
    assert results["rows"][2]["winner"] == winner
    # The folder's own tuning is used again, rather than the one beside the table's file.
    assert reproduce_table(make_plan(), [7], output).summary == results
