from typing import Any

import pytest
from pydantic import ValidationError

from pkgllm.config.load import load_config
from pkgllm.config.schema import Experiment
from pkgllm.errors import ConfigError

MODES = ("federated", "centralized", "local")
OBJECTIVES = ("kto", "apo_zero", "dpo", "sdpo", "sft")
PARTITIONS = ("by_client", "redistributed", "paired", "dirichlet", "one_sided")


def tree(partition: str, objective: str = "kto", mode: str = "federated") -> dict[str, Any]:
    cohort = {"cohort_size": 2} if mode == "federated" else {}
    return {
        "corpus": {"name": "small_world"},
        "base_model": {"name": "base-tiny"},
        "partition": {"name": partition},
        "objective": {"name": objective},
        "mode": {"name": mode, "rounds": 2, **cohort},
    }


def refusals(partition: str, objective: str, mode: str) -> str:
    try:
        Experiment.model_validate(tree(partition, objective, mode), strict=True)
    except ValidationError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("partition", PARTITIONS)
def test_what_makes_no_sense_together_is_refused(partition: str, objective: str, mode: str) -> None:
    said = refusals(partition, objective, mode)
    pairs = objective in ("dpo", "sdpo") and partition in ("redistributed", "one_sided")
    nothing_to_like = (partition, objective) == ("one_sided", "sft")
    alone = (partition, mode) == ("redistributed", "local")
    assert ("needs an objective without pairs" in said) == pairs
    assert ("needs an objective that learns from undesirable examples" in said) == nothing_to_like
    assert ("needs clients that train together" in said) == alone
    assert bool(said) == (pairs or nothing_to_like or alone)


def test_everything_that_is_wrong_is_reported_at_once() -> None:
    said = refusals("redistributed", "sdpo", "local")
    assert "every group holds a single example, and sdpo compares two labels in a group" in said
    assert "use mode federated or centralized, or partition by_client" in said


def test_without_a_partition_clients_keep_their_own_groups() -> None:
    without = tree("by_client")
    del without["partition"]
    assert not Experiment.model_validate(without).partition.changes_groups


@pytest.mark.parametrize(
    ("name", "key", "values"),
    [
        ("one_sided", "one_sided_share", [0.0, -0.5, 1.01, float("nan")]),
        ("dirichlet", "concentration", [0.0, 9e-4, 1.1e6, float("inf"), float("nan")]),
    ],
)
def test_a_setting_must_be_in_range(name: str, key: str, values: list[float]) -> None:
    for value in values:
        partition = {"name": name, key: value}
        with pytest.raises(ValidationError):
            Experiment.model_validate({**tree(name), "partition": partition}, strict=True)


def test_the_former_key_is_refused_with_the_new_one() -> None:
    with pytest.raises(ConfigError, match=r"layout: unknown key.*it is called partition"):
        load_config("quickstart.yaml", ["layout={name: paired}"])
