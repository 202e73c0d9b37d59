from typing import Any

import pytest
from pydantic import ValidationError

from helpers.algorithm_steps import with_defaults
from pkgllm.config.choices import plain
from pkgllm.config.schema import Experiment
from pkgllm.federation.algorithm import Algorithm
from pkgllm.federation.algorithms import ALGORITHMS
from pkgllm.privacy.units.client import ClientPrivacy
from pkgllm.privacy.units.example import ExamplePrivacy
from pkgllm.privacy.units.none import NoPrivacy

FEDERATED = {"name": "federated", "rounds": 2, "cohort_size": 2}
CLIENT = {"name": "client", "delta": 1e-3, "clip_norm": 0.1, "noise_multiplier": 1.0}
EXAMPLE = {
    "name": "example",
    "delta": 1e-3,
    "clip_norm": 1.0,
    "target_epsilon": 3.0,
    "expected_batch_size": 4,
}


def experiment(privacy: dict[str, Any], **sections: Any) -> Experiment:
    tree = {
        "corpus": {"name": "small_world"},
        "base_model": {"name": "base-tiny"},
        "objective": {"name": "dpo"},
        "mode": FEDERATED,
        **sections,
    }
    return Experiment.model_validate({**tree, "privacy": privacy}, strict=True)


def refused(privacy: dict[str, Any], **sections: Any) -> str:
    with pytest.raises(ValidationError) as error:
        experiment(privacy, **sections)
    return str(error.value)


def test_the_name_decides_the_unit() -> None:
    assert isinstance(experiment({"name": "none"}).privacy, NoPrivacy)
    assert isinstance(experiment(CLIENT).privacy, ClientPrivacy)
    found = experiment(EXAMPLE).privacy
    assert isinstance(found, ExamplePrivacy)
    assert (found.accountant, found.max_groups_per_fact) == ("prv", 2)


def test_the_target_is_the_budget_unless_one_is_given() -> None:
    def budget(**keys: object) -> float | None:
        found = experiment({**EXAMPLE, **keys}).privacy
        assert isinstance(found, ExamplePrivacy)
        return found.budget

    assert budget() == 3.0
    assert budget(max_epsilon=4.0) == 4.0
    assert budget(target_epsilon=None, noise_multiplier=1.0) is None


@pytest.mark.parametrize("key", ["delta", "clip_norm"])
@pytest.mark.parametrize("unit", [CLIENT, EXAMPLE])
def test_delta_and_clip_norm_have_no_default(unit: dict[str, Any], key: str) -> None:
    assert "Field required" in refused({k: v for k, v in unit.items() if k != key})


@pytest.mark.parametrize(
    "change",
    [
        {"delta": 0.0},
        {"delta": 1.0},
        {"clip_norm": 0.0},
        {"noise_multiplier": 0.0},
        {"max_epsilon": 0.0},
        {"accountant": "gdp"},
    ],
)
def test_numbers_out_of_range_are_refused(change: dict[str, Any]) -> None:
    refused({**CLIENT, **change})


@pytest.mark.parametrize(
    ("change", "piece"),
    [
        ({"noise_multiplier": None}, "must hold noise_multiplier or target_epsilon, has neither"),
        ({"target_epsilon": 2.0}, "has both, 1 and 2; leave one out"),
        (
            {"noise_multiplier": None, "target_epsilon": 3.0, "max_epsilon": 2.0},
            "max_epsilon must be at least target_epsilon, 3, got 2",
        ),
    ],
)
def test_the_noise_is_given_once(change: dict[str, Any], piece: str) -> None:
    assert piece in refused({**CLIENT, **change})


def test_stock_kto_couples_the_examples_of_a_batch() -> None:
    message = refused(EXAMPLE, objective={"name": "kto"})
    assert "one example moves the gradient of every other" in message
    assert "use apo_zero, or kto with objective.kl_baseline public" in message


@pytest.mark.parametrize(
    "objective",
    [
        {"name": "kto", "kl_baseline": "public", "desirable_weight": 2.0},
        {"name": "apo_zero"},
        {"name": "dpo"},
        {"name": "sdpo"},
        {"name": "sft"},
    ],
)
def test_objectives_that_stay_within_an_example_are_allowed(objective: dict[str, Any]) -> None:
    experiment(EXAMPLE, objective=objective)
    experiment(CLIENT, objective={"name": "kto"})


@pytest.mark.parametrize("unit", [CLIENT, EXAMPLE])
def test_weights_from_private_counts_are_refused_however_the_run_is_marked(
    unit: dict[str, Any],
) -> None:
    mode = {**FEDERATED, "weighting": "examples"}
    for marked in (False, True):
        message = refused({**unit, "report_private_metrics": marked}, mode=mode)
        assert "mode.weighting must be uniform with privacy.name" in message


@pytest.mark.parametrize(
    ("unit", "mode", "piece"),
    [
        (CLIENT, "centralized", "set privacy.name to example or none"),
        (CLIENT, "local", "set privacy.name to none"),
        (EXAMPLE, "local", "must be federated or centralized with privacy.name example"),
    ],
)
def test_a_mode_in_which_the_unit_means_nothing(
    unit: dict[str, Any], mode: str, piece: str
) -> None:
    assert piece in refused(unit, mode={"name": mode, "rounds": 2})


def test_example_goes_with_pooled_graphs() -> None:
    experiment(EXAMPLE, mode={"name": "centralized", "rounds": 2})


def test_the_sequential_engine_has_no_gradient_of_an_example() -> None:
    assert "training.engine must be lanes" in refused(EXAMPLE, training={"engine": "sequential"})
    experiment(CLIENT, training={"engine": "sequential"})


@pytest.mark.parametrize("kind", list(ALGORITHMS.own()), ids=lambda kind: kind.__name__)
def test_the_unit_client_goes_with_algorithms_that_take_a_mean(kind: type[Algorithm]) -> None:
    strategy = plain(with_defaults(kind))
    mode = {**FEDERATED, "cohort_size": 5, "strategy": strategy}
    sections: dict[str, Any] = {"mode": mode, "training": {"optimizer": "sgd"}}
    if kind.linear:
        experiment(CLIENT, **sections)
    else:
        message = f"mode.strategy {strategy['name']} does not go with privacy.name client"
        assert message in refused(CLIENT, **sections)


def test_local_noise_has_no_noisy_count() -> None:
    local = {**CLIENT, "mechanism": "local"}
    assert experiment(local).privacy.clients_add_noise
    assert not experiment(CLIENT).privacy.clients_add_noise
    assert not experiment(EXAMPLE).privacy.clients_add_noise
    message = refused({**local, "adaptive_clipping": {"count_noise_std": 2.0}})
    assert "privacy.adaptive_clipping does not go with privacy.mechanism local" in message
    assert "leave it out, or use central" in message


def test_the_count_of_adaptive_clipping_may_not_spend_everything() -> None:
    message = refused({**CLIENT, "adaptive_clipping": {"count_noise_std": 0.5}})
    assert "count_noise_std must be above half of privacy.noise_multiplier, 1" in message
    experiment({**CLIENT, "adaptive_clipping": {"count_noise_std": 0.51}})


@pytest.mark.parametrize("runtime", ["local", "ray", "deployment"])
def test_the_unit_example_goes_with_every_runtime(runtime: str) -> None:
    mode = {**FEDERATED, "runtime": {"name": runtime}}
    assert experiment(EXAMPLE, mode=mode).privacy.name == "example"
    bare = {**EXAMPLE, "target_epsilon": None, "noise_multiplier": 1.0}
    experiment({**bare, "max_epsilon": 5.0}, mode=mode)
    if runtime == "deployment":
        # Nobody would know what was spent.
        message = refused(bare, mode=mode)
        assert "privacy.target_epsilon or privacy.max_epsilon must be given with mode" in message
    else:
        experiment(bare, mode=mode)


@pytest.mark.parametrize("mechanism", ["central", "local"])
@pytest.mark.parametrize("runtime", ["local", "ray", "deployment"])
def test_the_unit_client_goes_with_every_runtime(mechanism: str, runtime: str) -> None:
    mode = {**FEDERATED, "runtime": {"name": runtime}}
    assert experiment({**CLIENT, "mechanism": mechanism}, mode=mode).privacy.name == "client"
