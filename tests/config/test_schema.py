from typing import Any

import pytest
from pydantic import ValidationError

from pkgllm.config.schema import Experiment, Federated, Training
from pkgllm.objectives.kto import Kto

GOOD: dict[str, Any] = {
    "corpus": {"name": "small_world"},
    "base_model": {"name": "base-tiny"},
    "objective": {"name": "kto"},
    "mode": {"name": "federated", "rounds": 2, "cohort_size": 2},
}


def test_the_name_decides_the_class_of_a_choice() -> None:
    experiment = Experiment.model_validate(GOOD, strict=True)
    assert isinstance(experiment.objective, Kto)
    assert isinstance(experiment.mode, Federated)
    assert experiment.mode.strategy.name == "fedavg"


def test_the_tree_is_frozen() -> None:
    experiment = Experiment.model_validate(GOOD, strict=True)
    with pytest.raises(ValidationError, match="frozen"):
        experiment.training.learning_rate = 1.0
    assert hash(experiment) == hash(Experiment.model_validate(GOOD, strict=True))


def test_whole_numbers_stand_for_numbers() -> None:
    training = Training.model_validate({"learning_rate": 1}, strict=True)
    assert training.learning_rate == 1.0
    assert isinstance(training.learning_rate, float)


@pytest.mark.parametrize("shares", [(0.5, 0.5), (0.2, 0.9), (0.99, 0.01)])
def test_something_is_left_to_train_on(shares: tuple[float, float]) -> None:
    split = {"test_share": shares[0], "validation_share": shares[1]}
    with pytest.raises(ValidationError, match=r"test_share \+ validation_share must be below 1"):
        Experiment.model_validate({**GOOD, "split": split}, strict=True)


def test_validation_is_ranked_only_where_it_is_held_out() -> None:
    tree = {**GOOD, "evaluation": {"part": "validation"}}
    Experiment.model_validate(tree, strict=True)
    with pytest.raises(ValidationError, match=r"needs split\.validation_share above 0"):
        Experiment.model_validate({**tree, "split": {"validation_share": 0}}, strict=True)


def test_private_counts_leave_a_client_only_when_the_run_is_marked() -> None:
    tree = {**GOOD, "mode": {**GOOD["mode"], "weighting": "examples"}}
    with pytest.raises(ValidationError, match=r"set privacy\.report_private_metrics"):
        Experiment.model_validate(tree, strict=True)
    marked = {**tree, "privacy": {"name": "none", "report_private_metrics": True}}
    assert Experiment.model_validate(marked, strict=True).mode == Federated(
        name="federated", rounds=2, cohort_size=2, weighting="examples"
    )
