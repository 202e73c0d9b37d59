from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from pkgllm.config.fields import describe
from pkgllm.config.load import load_config
from pkgllm.errors import ConfigError
from pkgllm.evaluation.metrics import METRICS
from pkgllm.objectives import OBJECTIVES
from pkgllm.studies.plot import lay_out_plot
from pkgllm.studies.study import MetricName, Plot, Point, Study
from pkgllm.studies.study_plan import load_study

PRIVACY: dict[str, Any] = {
    "base": "quickstart.yaml",
    "set": ["mode.rounds=3"],
    "grid": {
        "objective": {
            "apo_zero": ["objective={name: apo_zero}"],
            "dpo": ["objective={name: dpo}"],
        },
        "unit": {"example": [], "client": [], "none": []},
        "epsilon": {"inf": [], 8: ["training.local_steps=8"], 3: [], 1: []},
    },
    "exclude": [
        {"epsilon": "inf", "unit": ["example", "client"]},
        {"epsilon": [8, 3, 1], "unit": "none"},
    ],
    "seeds": [0, 1, 2],
    "plot": {"x": "epsilon", "lines": ["objective", "unit"], "on_every_line": {"unit": "none"}},
}


def write_study(folder: Path, tree: dict[str, Any]) -> str:
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(tree, sort_keys=False), encoding="utf-8")
    return str(path)


def refused(folder: Path, tree: dict[str, Any]) -> list[str]:
    name = write_study(folder, tree)
    with pytest.raises(ConfigError) as caught:
        load_study(name)
    lines = str(caught.value).splitlines()
    assert all(line.startswith(f"{name}: ") for line in lines)
    return [line.removeprefix(f"{name}: ") for line in lines]


def test_the_metrics_are_those_that_are_reported() -> None:
    assert get_args(MetricName) == tuple(METRICS)


def test_every_key_is_documented_and_can_be_described() -> None:
    for section in (Study, Plot):
        for name, field in section.model_fields.items():
            assert describe(field), name
            assert field.description or name == "plot", name


def test_a_grid_with_combinations_left_out_and_every_seed(tmp_path: Path) -> None:
    plan = load_study(write_study(tmp_path, PRIVACY))
    # Two objectives, each with one point without privacy and two units at three epsilons.
    assert len(plan.points) == 2 * (1 + 2 * 3)
    assert [run.place for run in plan.runs[:4]] == [
        "apo_zero-example-8-seed0",
        "apo_zero-example-8-seed1",
        "apo_zero-example-8-seed2",
        "apo_zero-example-3-seed0",
    ]
    assert "dpo-none-inf-seed2" in [run.place for run in plan.runs]
    labels_by_point = {point.name: point.labels for point in plan.points}
    for run in plan.runs:
        labels = labels_by_point[run.line]
        steps = ["training.local_steps=8"] if labels["epsilon"] == "8" else []
        expected = load_config(
            "quickstart.yaml",
            [
                "mode.rounds=3",
                f"objective={{name: {labels['objective']}}}",
                *steps,
                f"seed={run.place[-1]}",
            ],
        )
        assert run.config == expected


def test_the_point_without_privacy_ends_every_line(tmp_path: Path) -> None:
    layout = load_study(write_study(tmp_path, PRIVACY)).layout
    assert layout is not None
    assert layout.places == ("1", "3", "8", "inf")
    assert layout.connected
    assert layout.lines == {
        f"{objective}, {unit}": {
            "1": f"{objective}-{unit}-1",
            "3": f"{objective}-{unit}-3",
            "8": f"{objective}-{unit}-8",
            "inf": f"{objective}-none-inf",
        }
        for objective in ("apo_zero", "dpo")
        for unit in ("example", "client")
    }


def test_a_key_of_the_configuration_can_be_drawn_against() -> None:
    points = [
        (Point(name, {"rate": name}, ()), load_config("quickstart.yaml", overrides))
        for name, overrides in (
            ("fast", ["training.learning_rate=1e-2"]),
            ("slow", ["training.learning_rate=1e-4"]),
            ("usual", []),
        )
    ]
    layout = lay_out_plot(Plot(x="training.learning_rate"), points)
    assert layout.places == ("0.0001", "0.003", "0.01")
    assert list(layout.lines[""].values()) == ["slow", "usual", "fast"]
    absent = lay_out_plot(Plot(x="evaluation.max_clients"), points[:1])
    assert absent.places == ("none",)
    assert not absent.connected


@given(st.permutations(["10", "9", "inf", "0.5", "all", "none"]))
def test_places_are_numbers_by_size_then_words_as_they_come(labels: Sequence[str]) -> None:
    config = load_config("quickstart.yaml")
    points = [(Point(label, {"x": label}, ()), config) for label in labels]
    places = lay_out_plot(Plot(x="x"), points).places
    assert places[:3] == ("0.5", "9", "10")
    assert [place for place in places if place in ("inf", "all", "none")] == list(places[3:])
    words = [label for label in labels if label in ("all", "none")]
    assert [place for place in places if place in words] == words


BAD: dict[str, tuple[dict[str, Any], list[str]]] = {
    "unknown key": (
        {"seed": [1]},
        ["seed: unknown key, got [1] (did you mean seeds?)"],
    ),
    "no grid": ({"grid": {}}, ["grid must hold at least one axis"]),
    "not a list": (
        {"grid": {"a": {"x": 3}}},
        [
            'grid: must be names, each with names, each with a list of text, got {"a": {"x": 3}}',
        ],
    ),
    "no value": ({"grid": {"a": {}}}, ["grid.a must hold at least one value"]),
    "unsafe names": (
        {"grid": {"a": {"../x": []}}},
        [
            "grid.a: names become folders, so they must be letters and digits, and . _ + = - after "
            "the first; got '../x'"
        ],
    ),
    "number and text": (
        {"grid": {"a": {8: [], "8": []}}},
        ["grid.a.8: is on line 4 and again on line 5; keep one"],
    ),
    "one folder for two": (
        {"grid": {"a": {"x-y": [], "x": []}, "b": {"z": [], "y-z": []}}},
        ["grid: several points would share the name x-y-z; rename some of their values"],
    ),
    "differ in case alone": (
        {"grid": {"a": {"x": [], "X": []}}},
        ["grid: several points would share the name x; rename some of their values"],
    ),
    "long names": (
        {"grid": {"a": {"x" * 201: []}}},
        [f"grid: names of points must have at most 200 characters, got {'x' * 201}"],
    ),
    "seeds twice": ({"seeds": [1, 2, 1]}, ["seeds must hold each once, got 1 twice"]),
    "no seeds": ({"seeds": []}, ["seeds must hold at least one"]),
    "a seed among the overrides": (
        {"grid": {"a": {"x": ["seed=3"]}}},
        ["seed is set by seeds, so no override may set it"],
    ),
    "unknown axis left out": (
        {"exclude": [{"objectives": "dpo"}]},
        ["exclude 1: unknown axis 'objectives' (did you mean objective?)"],
    ),
    "unknown value left out": (
        {"exclude": [{"objective": ["dpo", "kt"]}]},
        ["exclude 1: axis objective has no value 'kt' (did you mean kto?)"],
    ),
    "nothing named": (
        {"exclude": [{}]},
        ["exclude 1 must name an axis, or it leaves out everything"],
    ),
    "everything left out": (
        {"exclude": [{"objective": ["kto", "dpo"]}]},
        ["exclude leaves no point of the grid"],
    ),
    "half a reference": (
        {
            "grid": {"objective": {"kto": []}, "b": {"y": []}},
            "reference": {"objective": "kto"},
        },
        ["reference must name a value for each axis, lacks b"],
    ),
    "reference left out": (
        {"exclude": [{"objective": "kto"}], "reference": {"objective": "kto"}},
        ["reference must be a point that is run, and exclude leaves it out"],
    ),
    "unknown x": (
        {"plot": {"x": "training.rate"}},
        ["plot.x must be an axis (objective) or a key of the configuration, got 'training.rate'"],
    ),
    "x as lines": (
        {"plot": {"x": "objective", "lines": "objective"}},
        ["plot.lines must not hold objective, which is plot.x"],
    ),
    "every line of no line": (
        {"plot": {"x": "seed", "on_every_line": {"objective": "kto"}}},
        ["plot.on_every_line: objective must stand in plot.lines"],
    ),
    "points on each other": (
        {"plot": {"x": "mode.rounds"}},
        ["plot: kto and dpo would stand at one place; name another axis in lines"],
    ),
    "metrics that are not shown": (
        {"plot": {"x": "objective", "metrics": ["hits@1"]}},
        ["plot.metrics must stand in metrics as well, got hits@1"],
    ),
    "a model that is not ranked": (
        {"models": ["tuned", "popularty"]},
        [
            "models must be ranked by the runs (tuned, base, popularity, item_knn, ease), got "
            "popularty; did you mean popularity?"
        ],
    ),
    "a model to be tested that only some runs rank": (
        {
            "models": ["base", "tuned"],
            "grid": {"base": {"asked": [], "not": ["evaluation.base_model=false"]}},
        },
        [
            "the first of models must be ranked by all runs (tuned, popularity, item_knn, ease), "
            "got base"
        ],
    ),
    "deployment": (
        {"grid": {"runtime": {"far": ["mode.runtime={name: deployment}"], "near": []}}},
        ["far: mode.runtime must be local or ray in a sweep, got deployment"],
    ),
    # All problems of all runs at once, and each once.
    "runs that cannot be": (
        {
            "set": ["mode.round=3"],
            "grid": {
                "objective": {"kto": [], "dpo": ["objective={name: dp}"]},
                "rate": {"none": ["training.learning_rate=0"], "some": []},
            },
        },
        [
            "every point: mode.round: unknown key, got 3 (did you mean rounds?)",
            "kto-none, dpo-none: training.learning_rate: must be a number above 0, got 0",
            "dpo-none, dpo-some: objective: objective.name: must be one of "
            f'{", ".join(OBJECTIVES)}, got "dp" (did you mean dpo?)',
        ],
    ),
}


@pytest.mark.parametrize("fault", BAD)
def test_a_study_that_cannot_be_is_refused(tmp_path: Path, fault: str) -> None:
    changes, expected = BAD[fault]
    tree: dict[str, Any] = {
        "base": "quickstart.yaml",
        "grid": {"objective": {"kto": [], "dpo": ["objective={name: dpo}"]}},
    }
    assert load_study(write_study(tmp_path, tree)).runs
    assert sorted(refused(tmp_path, {**tree, **changes})) == sorted(expected)


def test_studies_and_configurations_are_not_mixed_up() -> None:
    with pytest.raises(ConfigError, match=r"^no study agregators\.yaml .*studies/aggregators"):
        load_study("agregators.yaml")
    with pytest.raises(ConfigError) as caught:
        load_config("no.yaml")
    assert "studies/aggregators" not in str(caught.value)
    with pytest.raises(ConfigError, match=r"quickstart\.yaml: corpus: unknown key"):
        load_study("quickstart.yaml")
