import copy
from typing import Any

import pytest

from pkgllm.config.overrides import apply_overrides, parse_override
from pkgllm.errors import ConfigError

TREE: dict[str, Any] = {
    "seed": 3,
    "objective": {"name": "kto", "beta": 0.1},
    "mode": {"name": "federated", "rounds": 2, "cohort_size": 2},
}


def _apply(*texts: str) -> tuple[dict[str, Any], list[str]]:
    tree, problems = apply_overrides(TREE, [parse_override(text) for text in texts])
    return tree, [str(problem) for problem in problems]


def test_a_value_is_set_in_a_copy() -> None:
    before = copy.deepcopy(TREE)
    tree, problems = _apply("objective.beta=0.2", "seed=4")
    assert problems == []
    assert tree["objective"] == {"name": "kto", "beta": 0.2}
    assert tree["seed"] == 4
    assert before == TREE


def test_the_later_of_two_values_wins() -> None:
    assert _apply("seed=4", "seed=5")[0]["seed"] == 5


def test_a_whole_section_is_replaced() -> None:
    assert _apply("objective={name: dpo}")[0]["objective"] == {"name": "dpo"}


def test_absent_sections_are_made() -> None:
    tree, problems = _apply("groups.negatives.uniform=2")
    assert problems == []
    assert tree["groups"] == {"negatives": {"uniform": 2}}


def test_an_absent_choice_becomes_its_default() -> None:
    assert _apply("privacy.report_private_metrics=true")[0]["privacy"] == {
        "name": "none",
        "report_private_metrics": True,
    }
    assert _apply("mode.strategy.x=1")[0]["mode"]["strategy"] == {"name": "fedavg", "x": 1}


def test_an_absent_choice_without_a_default_is_not_guessed() -> None:
    assert _apply("corpus.folder=x")[0]["corpus"] == {"folder": "x"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seed.x=1", "seed.x: unknown key, because seed is a value and has no keys"),
        ("trainin.x=1", "trainin.x: unknown key trainin (did you mean training?)"),
        ("groups.negative.x=1", "unknown key groups.negative (did you mean negatives?)"),
        (
            "split.zzz.x=1",
            "unknown key split.zzz (known here: test_share, validation_share, restated_facts)",
        ),
    ],
)
def test_a_path_through_no_section_is_a_problem(text: str, message: str) -> None:
    tree, problems = _apply(text)
    assert len(problems) == 1
    assert message in problems[0]
    assert tree == {**TREE, **({"groups": {}} if "groups" in text else {}), **_split(text)}


def _split(text: str) -> dict[str, Any]:
    return {"split": {}} if "split" in text else {}


@pytest.mark.parametrize("text", ["seed", "=1", ".seed=1", "seed.=1", "a..b=1", ""])
def test_another_form_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="must be KEY=VALUE, for example"):
        parse_override(text)


def test_values_are_yaml() -> None:
    assert parse_override("adapter.target_modules=[q_proj, v_proj]").value == ("q_proj", "v_proj")
    assert parse_override("corpus.folder=").value is None
    assert parse_override("prompt.request=a=b").value == "a=b"
    assert parse_override(" seed = 1").path == ("seed",)


def test_a_value_that_is_not_yaml_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^--set seed: line 1, column 2: this is not YAML"):
        parse_override("seed=[")


def test_keys_that_stand_twice_in_a_value_are_found() -> None:
    (problem,) = parse_override("objective={name: dpo, name: kto}").problems
    assert problem.path == ("objective", "name")
