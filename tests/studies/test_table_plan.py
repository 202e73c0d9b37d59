from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from helpers.tiny_studies import write_table
from pkgllm.baselines.ease import Ease
from pkgllm.config.load import load_config
from pkgllm.config.schema import Experiment
from pkgllm.errors import ConfigError
from pkgllm.studies.table_plan import TablePlan, load_table

Load = Callable[..., TablePlan]
TUNING = {"tuned": {"1": 0.25, "2": 0.5}}

ROWS: dict[str, dict[str, Any]] = {
    "tuned": {
        "config": "quickstart.yaml",
        "set": ["mode.rounds=3"],
        "grid": {1: ["training.learning_rate=1e-3"], 2: ["training.learning_rate=2e-3"]},
    },
    "ease": {
        "of": "tuned",
        "model": "ease",
        "set": ["evaluation.baselines.names=[ease]"],
        "grid": {"low": ["evaluation.baselines.l2=1"], "high": ["evaluation.baselines.l2=9"]},
    },
}


@pytest.fixture
def load(tmp_path: Path) -> Load:
    def load(
        changes: dict[str, dict[str, Any]] | None = None, *, tuning: object = TUNING, **more: Any
    ) -> TablePlan:
        rows = [
            {"name": name, **ROWS.get(name, {}), **(changes or {}).get(name, {})}
            for name in {**ROWS, **(changes or {})}
        ]
        return write_table(tmp_path, **{"rows": rows, "reference": "tuned", **more}, tuning=tuning)

    return load


def test_a_run_has_its_own_settings_those_of_the_rows_it_ranks_and_all_winners(load: Load) -> None:
    plan = load(tuning={"tuned": {"1": 0.5, "2": 0.25}, "ease": {"low": 0.1, "high": 0.2}})
    tuned, ease = plan.table.rows
    assert (plan.winner(tuned), plan.winner(ease)) == ("1", "high")
    (run,) = plan.runs([5])
    assert (run.place, run.line) == ("rows/tuned/seed5", "tuned")
    assert run.config == load_config(
        "quickstart.yaml",
        [
            "seed=5",
            "mode.rounds=3",
            "training.learning_rate=1e-3",
            "evaluation.baselines={names: [ease], l2: 9}",
        ],
    )
    trial = plan.trial(tuned, "2").config
    assert isinstance(trial, Experiment)
    assert trial.training.learning_rate == 2e-3
    assert (trial.evaluation.part, trial.seed) == ("validation", 0)
    # It would be asked the same in every setting.
    assert not trial.evaluation.base_model
    assert plan.trial(ease, "low").config.evaluation.baselines == (Ease(l2=1),)


def test_people_may_be_fewer_while_settings_are_tried(load: Load) -> None:
    plan = load({"tuned": {"set_when_tuning": ["evaluation.max_clients=7"]}})
    tuned, ease = plan.table.rows
    assert plan.trial(tuned, "1").config.evaluation.max_clients == 7
    assert plan.run(tuned, 0).config.evaluation.max_clients is None
    # Only the row whose ranking takes long names fewer people, not others in its run.
    assert plan.trial(ease, "low").config.evaluation.max_clients is None


def test_of_equal_validation_values_the_first_wins(load: Load) -> None:
    plan = load(tuning={"tuned": {"1": 0.5, "2": 0.5}})
    tuned, ease = plan.table.rows
    assert (plan.winner(tuned), plan.winner(ease)) == ("1", None)


@pytest.mark.parametrize(
    ("tuning", "piece"),
    [
        (
            {"tuned": {"1": 0.5}},
            "row tuned: must have a number for each setting of its grid",
        ),
        ({"other": {}}, "row other does not stand in the table"),
        ({"tuned": {"1": "much", "2": 1}}, "must hold a number for each setting by row"),
        ({"tuned": {"1": float("nan"), "2": 1}}, "must hold a number for each setting by row"),
        ([], "must hold a number for each setting by row"),
    ],
)
def test_a_tuning_that_does_not_fit_the_table_is_refused(
    load: Load, tuning: object, piece: str
) -> None:
    with pytest.raises(ConfigError, match="tune again with --tune") as caught:
        load(tuning=tuning)
    assert f"t.tuning.json: {piece}" in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "more", "piece"),
    [
        ({"tuned": {"grids": {}}}, {}, "row tuned: grids: unknown key"),
        ({"tuned": {"set": ["mode.round=3"]}}, {}, "row tuned: mode.round: unknown key"),
        (
            {"tuned": {"grid": {1: ["seed=x"], 2: []}}},
            {},
            "row tuned: seed: must be a whole number",
        ),
        ({"ease": {"model": "eas"}}, {}, "row ease: model must be ranked by its run (tuned, base"),
        ({"ease": {"of": "tuner"}}, {}, "row ease: of must be a row with a config, got tuner"),
        ({"ease": {"config": "quickstart.yaml"}}, {}, "row ease: one of config and of must be"),
        ({"x": {}}, {}, "row x: one of config and of must be given"),
        (
            {"ease": {"grid": {"one": []}}},
            {},
            "equally many settings, got tuned 2, ease 1",
        ),
        ({"tuned": {"validation": {1: 0.5, 2: 1}}}, {}, "row tuned: validation: unknown key"),
        ({"ease": {"isolated": "nobody"}}, {}, "isolated must be the name of a row, got nobody"),
        ({"tuned": {"config": "quickstar.yaml"}}, {}, "did you mean quickstart.yaml"),
        ({}, {"reference": "eas"}, "reference must be the name of a row, got eas"),
        ({}, {"rows": []}, "rows: "),
        ({}, {"rows": 3}, "rows: "),
        ({}, {"rows": [3]}, "row 1: must be a section of keys and values, got 3"),
        ({"tuned": {"set": 3}}, {}, "row tuned: set: must be a list of text, got 3"),
        ({}, {"row": []}, "row: unknown key"),
        (
            {},
            {"rows": [{"name": "tuned", "config": "quickstart.yaml"}] * 2},
            "rows must have names of their own, got tuned 2 times",
        ),
    ],
)
def test_what_is_wrong_is_named_with_its_row(
    load: Load, changes: dict[str, Any], more: dict[str, Any], piece: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load(changes, **more)
    assert piece in str(caught.value)
    assert all("t.yaml: " in line or "quickstar" in line for line in str(caught.value).splitlines())


def test_tables_are_not_configurations_of_runs() -> None:
    with pytest.raises(ConfigError, match=r"^no table table2\.yaml"):
        load_table("table2.yaml")
    with pytest.raises(ConfigError, match="no configuration nothing") as caught:
        load_config("nothing.yaml")
    assert "tables/" not in str(caught.value)
