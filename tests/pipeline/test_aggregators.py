"""Every aggregator through a whole run, as a configuration names it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from helpers.run_files import read_metrics
from helpers.tiny_corpus import tiny_experiment, write_corpus
from pkgllm.config.load import load_config
from pkgllm.errors import ConfigError
from pkgllm.lm.adapter import AdapterState, read_adapter_state
from pkgllm.pipeline.train import train
from pkgllm.progress import Silent

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


@pytest.fixture(scope="module")
def data(
    tmp_path_factory: pytest.TempPathFactory,
    make_dialogue: Callable[..., dict[str, Any]],
    write_redial: Callable[..., Path],
) -> Path:
    return write_corpus(tmp_path_factory.mktemp("data"), make_dialogue, write_redial)


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


@pytest.mark.parametrize("name", STRATEGIES)
def test_two_rounds_of_a_run(name: str, data: Path, tiny_base_folder: Path, tmp_path: Path) -> None:
    training = {"local_steps": 2, **(SGD if name == "scaffold" else {})}

    def run(mode: dict[str, Any], folder: str) -> AdapterState:
        config = tiny_experiment(
            data,
            tiny_base_folder,
            mode=mode,
            training=training,
            evaluation={"bootstrap_resamples": 100, "max_clients": 2},
        )
        train(config, tmp_path / folder, Silent())
        return read_adapter_state(tmp_path / folder / "adapter")

    found = run(mode_of(name), "run")
    assert all(torch.isfinite(value).all() for value in found.values())
    rounds = read_metrics(tmp_path / "run")
    assert [each["failed"] for each in rounds] == [{}, {}]
    assert all(each["update_norm"] > 0 for each in rounds)
    # What clients keep is private and only training needs it.
    assert not (tmp_path / "run" / "client_states").exists()
    assert load_config(str(tmp_path / "run" / "config.yaml")).mode.name == "federated"
    if name != "fedavg":
        plain = run(mode_of("fedavg"), "plain")
        assert any(not torch.equal(found[key], plain[key]) for key in found)
        ratio = rounds[1]["bytes_down"] / read_metrics(tmp_path / "plain")[1]["bytes_down"]
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


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["fedavg", "fedprox", "scaffold", "fedavgm", "fedadagrad", "fedyogi", "fedadam"]
)
def test_it_trains_on_the_small_world(name: str, tmp_path: Path) -> None:
    fewer = ["mode.rounds=2", "evaluation.max_clients=4", f"mode.strategy={{name: {name}}}"]
    plain = ["training.optimizer=sgd", "training.learning_rate=0.3"] if name == "scaffold" else []
    config = load_config("quickstart.yaml", [*fewer, *plain])
    train(config, tmp_path / "run", Silent())
    rounds = read_metrics(tmp_path / "run")
    assert [each["failed"] for each in rounds] == [{}, {}]
    assert (tmp_path / "run" / "results.json").is_file()
