from typing import Any

import pytest
from pydantic import ValidationError

from pkgllm.config.problems import problems_of, shown
from pkgllm.config.schema import Experiment
from pkgllm.objectives import OBJECTIVES

NAMES = ", ".join(OBJECTIVES)

GOOD: dict[str, Any] = {
    "corpus": {"name": "small_world"},
    "base_model": {"name": "base-tiny"},
    "objective": {"name": "kto"},
    "mode": {"name": "federated", "rounds": 2, "cohort_size": 2},
}


def _lines(**changes: object) -> list[str]:
    tree = {**GOOD, **changes}
    with pytest.raises(ValidationError) as caught:
        Experiment.model_validate(tree, strict=True)
    return [str(problem) for problem in problems_of(caught.value, tree)]


def _without(key: str) -> dict[str, Any]:
    return {name: value for name, value in GOOD["mode"].items() if name != key}


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        (
            {"objective": {"name": "kto", "betta": 0.1}},
            "objective.betta: unknown key, got 0.1 (did you mean beta?)",
        ),
        (
            {"learning_rate": 1},
            "learning_rate: unknown key, got 1 (did you mean training.learning_rate?)",
        ),
        (
            {"split": {"zzz": "x"}},
            'split.zzz: unknown key, got "x" (known here: test_share, validation_share, '
            "restated_facts)",
        ),
        (
            {"objective": {"name": "dpo", "undesirable_weight": 1}},
            "objective.undesirable_weight: unknown key, got 1 "
            "(it belongs to kto and apo_zero, not to dpo)",
        ),
        (
            {"mode": _without("rounds")},
            "mode.rounds: missing, must be a whole number of at least 1",
        ),
        (
            {"objective": {"beta": 1}},
            f"objective.name: missing, must be one of {NAMES}",
        ),
        (
            {"objective": {"name": "ktoo"}},
            f'objective.name: must be one of {NAMES}, got "ktoo" (did you mean kto?)',
        ),
        (
            {"objective": {"name": 7}},
            f"objective.name: must be one of {NAMES}, got 7",
        ),
        (
            {"objective": "kto"},
            f"objective: must be a section of keys and values named {' or '.join(OBJECTIVES)}, "
            'got "kto"',
        ),
        ({"training": None}, "training: must be a section of keys and values, got null"),
        (
            {"training": {"learning_rate": "fast"}},
            ('training.learning_rate: must be a number above 0, got "fast"'),
        ),
        (
            {"training": {"learning_rate": 0}},
            "training.learning_rate: must be a number above 0, got 0",
        ),
        (
            {"training": {"learning_rate": float("inf")}},
            "training.learning_rate: must be finite, got Infinity",
        ),
        (
            {"training": {"engine": "lane"}},
            'training.engine: must be one of lanes, sequential, trl, got "lane"',
        ),
        (
            {"clients": {"unseen_share": float("nan")}},
            "clients.unseen_share: must be finite, got NaN",
        ),
        ({"seed": True}, "seed: must be a whole number of at least 0, got true"),
        ({"seed": "4"}, 'seed: must be a whole number of at least 0, got "4"'),
        ({"seed": 1.0}, "seed: must be a whole number of at least 0, got 1.0"),
        (
            {"adapter": {"target_modules": ("q_proj", 3)}},
            'adapter.target_modules: must be a list of text or all-linear, got ["q_proj", 3]',
        ),
        (
            {"prompt": {"form": "triple"}},
            'prompt.form: must be one of triples, jsonld, prose, got "triple"',
        ),
        ({1: 2}, "1: unknown key, because every key is text"),
        (
            {"split": {"test_share": 0.6, "validation_share": 0.5}},
            "split: test_share + validation_share must be below 1, got 1.1",
        ),
    ],
)
def test_one_wrong_thing_gives_one_line(changes: dict[Any, Any], line: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Experiment.model_validate(tree := {**GOOD, **changes}, strict=True)
    assert [str(problem) for problem in problems_of(caught.value, tree)] == [line]


def test_all_wrong_things_are_told_together() -> None:
    lines = _lines(seed=-1, corpus={"name": "netflix"}, clients={"min_liked": 0, "x": 1})
    assert [line.split(":")[0] for line in lines] == [
        "seed",
        "corpus.name",
        "clients.min_liked",
        "clients.x",
    ]


NOTHING_TO_VALIDATE = {"split": {"validation_share": 0}, "evaluation": {"part": "validation"}}


def test_keys_at_odds_are_told_one_line_each() -> None:
    lines = _lines(**NOTHING_TO_VALIDATE, mode={**GOOD["mode"], "weighting": "examples"})
    assert len(lines) == 2
    assert lines[0].startswith("evaluation.part validation needs split.validation_share above 0")
    assert lines[1].startswith("mode.weighting examples sends private counts")


def test_a_long_value_is_shortened() -> None:
    assert shown("x" * 100) == '"' + "x" * 56 + "..."
