"""Every aggregator through a whole run, as a configuration names it."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from helpers.run_files import read_metrics
from helpers.tiny_corpus import tiny_experiment
from pkgllm.config.load import load_config
from pkgllm.errors import ConfigError
from pkgllm.lm.adapter import AdapterState, read_adapter_state
from pkgllm.pipeline.train import train
from pkgllm.progress import Silent

pytest_plugins = ["helpers.finished_runs"]

SGD = {"optimizer": "sgd", "learning_rate": 0.5}
STRATEGIES: dict[str, dict[str, Any]] = {
    "fedavg": {},
    "fedavg of products": {"aggregation": "stack_svd"},
    "fedprox": {"strategy": {"proximal_mu": 5.0}},
    "scaffold": {},
    "fedavgm": {},
    "fedadagrad": {},
    "fedyogi": {},
    "fedadam": {},
    "fedmedian": {},
    "fedtrimmedavg": {"strategy": {"trimmed_share": 0.34}},
    "krum": {"strategy": {"num_malicious": 0}},
}


def mode_of(name: str, **changes: Any) -> dict[str, Any]:
    chosen = {**STRATEGIES[name], **changes}
    strategy = {"name": name.split()[0], **chosen.pop("strategy", {})}
    return {
        "name": "federated",
        "rounds": 2,
        "cohort_size": 3,
        **chosen,
        "strategy": strategy,
    }


Run = tuple[AdapterState, list[dict[str, Any]]]
"""The last adapter, and what each round told."""


@pytest.fixture(scope="module")
def run(
    data: Path, tiny_base_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str, str], Run]:
    """Train two rounds by an aggregator, once for each optimizer of the clients."""

    @cache
    def train_with(name: str, optimizer: str) -> Run:
        config = tiny_experiment(
            data,
            tiny_base_folder,
            mode=mode_of(name),
            training={"local_steps": 2, **(SGD if optimizer == "sgd" else {})},
            evaluation={"bootstrap_resamples": 100, "max_clients": 1, "base_model": False},
        )
        folder = tmp_path_factory.mktemp("run") / "run"
        train(config, folder, Silent())
        # What clients keep is private and only training needs it.
        assert not (folder / "client_states").exists()
        assert load_config(str(folder / "config.yaml")).mode.name == "federated"
        return read_adapter_state(folder / "adapter"), read_metrics(folder)

    return train_with


@pytest.mark.slow
@pytest.mark.parametrize("name", STRATEGIES)
def test_two_rounds_of_a_run(name: str, run: Callable[[str, str], Run]) -> None:
    optimizer = "sgd" if name == "scaffold" else "adamw"
    found, rounds = run(name, optimizer)
    assert all(torch.isfinite(value).all() for value in found.values())
    assert [each["failed"] for each in rounds] == [{}, {}]
    assert all(each["update_norm"] > 0 for each in rounds)
    if name != "fedavg":
        plain, plain_rounds = run("fedavg", optimizer)
        assert any(not torch.equal(found[key], plain[key]) for key in found)
        ratio = rounds[1]["bytes_down"] / plain_rounds[1]["bytes_down"]
        assert ratio == pytest.approx(2 if name == "scaffold" else 1, rel=0.02)


@pytest.mark.parametrize(
    ("name", "mode", "sections", "message"),
    [
        ("scaffold", {}, {}, "set training.optimizer to sgd, and a training.learning_rate"),
        (
            "scaffold",
            {},
            {"training": {**SGD, "weight_decay": 0.1}},
            "set training.weight_decay to 0, got 0.1",
        ),
        (
            "scaffold",
            {"weighting": "examples"},
            {"training": SGD, "privacy": {"name": "none", "report_private_metrics": True}},
            "scaffold gives every update the same weight; set mode.weighting to uniform",
        ),
        (
            "fedmedian",
            {"weighting": "examples"},
            {"privacy": {"name": "none", "report_private_metrics": True}},
            "fedmedian gives every update the same weight",
        ),
        (
            "krum",
            {"strategy": {"num_malicious": 1}},
            {},
            r"at least 2 \* num_malicious \+ 3 = 5, got 3",
        ),
        (
            "fedadam",
            {"aggregation": "stack_svd"},
            {},
            "fedadam compares their single values; use fedavg or fedprox, or aggregation factor",
        ),
        (
            "fedavg of products",
            {},
            {"adapter": {"freeze_a": True}},
            "stack_svd would change the factor that adapter.freeze_a holds",
        ),
        ("fedtrimmedavg", {"strategy": {"trimmed_share": 0.5}}, {}, "less than 0.5"),
        ("fedavgm", {"strategy": {"server_momentum": 1.0}}, {}, "less than 1"),
    ],
)
def test_what_cannot_be_aggregated_is_a_configuration_error(
    name: str, mode: dict[str, Any], sections: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValidationError, match=message):
        tiny_experiment(tmp_path, tmp_path, mode=mode_of(name, **mode), **sections)


def test_the_command_line_hears_of_it_with_the_place() -> None:
    with pytest.raises(ConfigError, match=r"set training\.optimizer to sgd"):
        load_config("quickstart.yaml", ["mode.strategy.name=scaffold"])
    with pytest.raises(ConfigError, match=r"mode\.strategy\.proximal_mu"):
        load_config("quickstart.yaml", ["mode.strategy={name: fedprox, proximal_mu: -1}"])
