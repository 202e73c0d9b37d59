"""Runs whose KL baseline comes from public prompts: in every mode, under both privacy units."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from helpers.tiny_corpus import tiny_experiment
from pkgllm.config.schema import Experiment
from pkgllm.lm.adapter import AdapterState, adapter_state, read_adapter_state
from pkgllm.lm.base_model import load_base_model
from pkgllm.pipeline.build import (
    build_groups,
    make_kl_baseline,
    make_policy,
    make_writer,
    populate,
    read_corpus,
)
from pkgllm.pipeline.train import train
from pkgllm.progress import Silent
from pkgllm.runs.folder import RunFolder, client_adapter
from pkgllm.training.local import KlBaseline, LocalSteps, TrainedClient
from pkgllm.training.reference import ReferenceColumn
from pkgllm.training.sequential import SequentialTrainer, reference_scorer

pytest_plugins = ["helpers.finished_runs"]

PUBLIC = {"name": "kto", "kl_baseline": "public", "beta": 0.5, "nll_weight": 0.1}
SGD = {"optimizer": "sgd", "learning_rate": 0.5, "max_grad_norm": 10.0}
"""Unlike a first step of AdamW, it shows how long a gradient is."""
MODES: dict[str, dict[str, Any]] = {
    "federated": {"name": "federated", "rounds": 3, "cohort_size": 2},
    "centralized": {"name": "centralized", "rounds": 2, "cohort_size": 2},
    "local": {"name": "local", "rounds": 2},
}
EXAMPLE = {
    "name": "example",
    "delta": 0.01,
    "clip_norm": 0.1,
    "noise_multiplier": 0.3,
    "expected_batch_size": 2,
    "max_groups_per_fact": 1,
    "accountant": "rdp",
}
CLIENT = {
    "name": "client",
    "delta": 0.01,
    "clip_norm": 0.1,
    "noise_multiplier": 0.5,
    "accountant": "rdp",
}


class ByHand:
    """The parts of a run, to do what it does with no mode, server or lane."""

    def __init__(self, config: Experiment, store: Path) -> None:
        base = load_base_model(config.base_model.name, device="cpu")
        population = populate(config, read_corpus(config))
        writer = make_writer(config.prompt, base)
        self.groups = build_groups(config, population, writer, store, Silent())
        self.policy = make_policy(config, base)
        self.start = adapter_state(self.policy)
        self.baseline: KlBaseline = make_kl_baseline(
            config, self.policy, writer, population.corpus.catalogue
        )
        self._config, self._digests = config, base.digests

    def train(self, who: str, groups: Any, local_steps: int) -> tuple[AdapterState, list[float]]:
        """Return what one client comes to in two rounds, and the baseline of each."""
        trainer = SequentialTrainer(
            self.policy,
            {who: groups},
            self._config.objective,
            ReferenceColumn(reference_scorer(self.policy)),
            steps=LocalSteps("sgd", local_steps, groups_per_step=2, max_grad_norm=10.0),
            seed=self._config.seed,
        )
        state, baselines = self.start, []
        for round_num, rate in ((1, 0.5), (2, 0.25)):
            baseline = self.baseline(state)
            assert baseline is not None
            baselines.append(baseline)
            done = trainer(
                {who: state}, round_num=round_num, learning_rate=rate, kl_baseline=baseline
            )[who]
            assert isinstance(done, TrainedClient)
            state = done.adapter
        return state, baselines


def public(data: Path, base: Path, **sections: Any) -> Experiment:
    return tiny_experiment(data, base, **({"objective": PUBLIC} | sections))


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["lanes", "sequential"])
def test_centralized_training_takes_the_baseline_of_each_rounds_adapter(
    data: Path, tiny_base_folder: Path, tmp_path: Path, engine: str
) -> None:
    mode = MODES["centralized"]
    config = public(data, tiny_base_folder, mode=mode, training=SGD | {"engine": engine})
    train(config, tmp_path / "run", Silent())
    by_hand = ByHand(config, tmp_path / "groups.arrow")
    pooled = tuple(g for client in sorted(by_hand.groups) for g in by_hand.groups[client])
    expected, baselines = by_hand.train("pooled", pooled, local_steps=2)
    found = read_adapter_state(tmp_path / "run" / "adapter")
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
    told = [line["kl_baseline"] for line in RunFolder.open(tmp_path / "run").read_metrics()]
    assert told == pytest.approx(baselines, abs=1e-3)
    assert told[0] == 0.0
    assert min(baselines[1:]) > 0.05


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["lanes", "sequential"])
def test_in_local_training_every_client_has_the_baseline_of_its_own_adapter(
    data: Path, tiny_base_folder: Path, tmp_path: Path, engine: str
) -> None:
    training = SGD | {"engine": engine}
    config = public(data, tiny_base_folder, mode=MODES["local"], training=training)
    train(config, tmp_path / "run", Silent())
    by_hand = ByHand(config, tmp_path / "groups.arrow")
    last = set()
    for client in sorted(by_hand.groups)[:2]:
        expected, baselines = by_hand.train(client, by_hand.groups[client], local_steps=1)
        found = read_adapter_state(client_adapter(tmp_path / "run", client))
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
        last.add(baselines[-1])
    assert len(last) == 2
    assert min(last) > 0.05


@pytest.mark.slow
@pytest.mark.parametrize("privacy", [{"name": "none"}, CLIENT, EXAMPLE], ids=lambda p: p["name"])
def test_a_federated_round_tells_the_baseline_of_the_adapter_that_it_started_from(
    data: Path, tiny_base_folder: Path, tmp_path: Path, privacy: dict[str, Any]
) -> None:
    config = public(data, tiny_base_folder, mode=MODES["federated"], privacy=privacy)
    run = tmp_path / "run"
    train(config, run, Silent(), keep=3, insecure_fixed_noise=True)
    by_hand = ByHand(config, tmp_path / "groups.arrow")
    told = [line["kl_baseline"] for line in RunFolder.open(run).read_metrics()]
    started_from = [by_hand.start, *(adapter_after(run, number) for number in (1, 2))]
    assert told == [by_hand.baseline(adapter) for adapter in started_from]
    assert told[0] == 0.0
    assert len(set(told)) == 3


def adapter_after(run: Path, round_num: int) -> AdapterState:
    held = load_file(run / "checkpoints" / f"{round_num:06d}.safetensors")
    return {
        name.removeprefix("adapter/"): value
        for name, value in held.items()
        if name.startswith("adapter/")
    }


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["federated", "centralized"])
def test_the_unit_example_is_charged_as_with_any_other_objective(
    data: Path, tiny_base_folder: Path, tmp_path: Path, mode: str
) -> None:
    for name, objective in (
        ("public", {"name": "kto", "kl_baseline": "public", "nll_weight": 0.5}),
        ("zero", {"name": "apo_zero", "nll_weight": 0.5}),
    ):
        config = tiny_experiment(
            data, tiny_base_folder, mode=MODES[mode], objective=objective, privacy=EXAMPLE
        )
        train(config, tmp_path / name, Silent(), insecure_fixed_noise=True)
    public_run, zero_run = (RunFolder.open(tmp_path / name) for name in ("public", "zero"))
    promised, expected = (
        json.loads((run.path / "results.json").read_text())["privacy"]
        for run in (public_run, zero_run)
    )
    assert promised == expected
    one, other = public_run.read_metrics(), zero_run.read_metrics()
    assert [set(line) - set(o) for line, o in zip(one, other, strict=True)] == [
        {"kl_baseline"} for _ in other
    ]
    # Both start from the fresh adapter, whose baseline is 0; then they part.
    assert one[0]["update_norm"] == other[0]["update_norm"]
    assert one[-1]["update_norm"] != other[-1]["update_norm"]


@pytest.mark.slow
def test_the_baseline_is_the_adapters_whatever_the_clients_say(
    data: Path, other_data: Path, tiny_base_folder: Path
) -> None:
    def of(folder: Path, seed: int) -> float | None:
        config = public(folder, tiny_base_folder, seed=seed)
        base = load_base_model(str(tiny_base_folder), device="cpu")
        corpus, policy = read_corpus(config), make_policy(config, base)
        generator = torch.Generator().manual_seed(3)
        adapter = {
            key: torch.empty_like(value).normal_(0, 0.2, generator=generator)
            for key, value in adapter_state(policy).items()
        }
        writer = make_writer(config.prompt, base)
        return make_kl_baseline(config, policy, writer, corpus.catalogue)(adapter)

    graphs = [read_corpus(public(folder, tiny_base_folder)).graphs for folder in (data, other_data)]
    assert all(one.facts != other.facts for one, other in zip(*graphs, strict=True))
    assert of(data, 7) == of(other_data, 7)
    assert of(data, 7) != of(data, 8)


@pytest.mark.parametrize("objective", [{"name": "kto"}, {"name": "apo_zero"}, {"name": "sft"}])
def test_other_objectives_have_no_baseline_of_a_round(
    run_in: Callable[..., Any], data: Path, tiny_base_folder: Path, objective: dict[str, Any]
) -> None:
    config = tiny_experiment(data, tiny_base_folder, objective=objective)
    base = load_base_model(str(tiny_base_folder), device="cpu")
    policy, catalogue = make_policy(config, base), read_corpus(config).catalogue
    made = make_kl_baseline(config, policy, make_writer(config.prompt, base), catalogue)
    assert made(adapter_state(policy)) is None
    _, _, report = run_in("federated")
    assert all("kl_baseline" not in line for line in RunFolder(report.folder).read_metrics())
