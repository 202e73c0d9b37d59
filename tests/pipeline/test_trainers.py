"""The trainer that a configuration with privacy unit ``example`` names, and what it trains on."""

from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from transformers import GPT2Config, GPT2LMHeadModel

from helpers.tiny_corpus import tiny_experiment
from helpers.tiny_decoders import with_random_adapter
from pkgllm.config import schema
from pkgllm.errors import ModelError
from pkgllm.lm.adapter import adapter_state, attach_adapter
from pkgllm.lm.base_model import load_base_model
from pkgllm.pipeline.build import build_groups, make_writer, populate, read_corpus
from pkgllm.pipeline.privacy import plan_run
from pkgllm.pipeline.trainers import check_engine, make_trainer
from pkgllm.privacy.example_level import ExampleRelease
from pkgllm.privacy.mechanisms import Mechanism
from pkgllm.privacy.noise import fixed
from pkgllm.privacy.units.none import NoPrivacy
from pkgllm.progress import Silent
from pkgllm.prompts.group_store import GroupStore
from pkgllm.training.private_lanes import PrivateLaneTrainer

pytest_plugins = ["helpers.finished_runs"]

EXAMPLE = {
    "name": "example",
    "delta": 1e-2,
    "clip_norm": 0.5,
    "noise_multiplier": 1.0,
    "expected_batch_size": 2,
}


Build = Callable[..., tuple[schema.Experiment, GroupStore]]


@pytest.fixture
def build(data: Path, tiny_base_folder: Path, tmp_path: Path) -> Build:
    def build(**sections: Any) -> tuple[schema.Experiment, GroupStore]:
        chosen = {"objective": {"name": "apo_zero"}, "privacy": EXAMPLE, **sections}
        config = tiny_experiment(data, tiny_base_folder, **chosen)
        writer = make_writer(config.prompt, load_base_model(str(tiny_base_folder), device="cpu"))
        population = populate(config, read_corpus(config))
        return config, build_groups(config, population, writer, tmp_path / "groups", Silent())

    return build


@pytest.mark.slow
@pytest.mark.parametrize("bound", [1, 2])
def test_no_fact_enters_more_groups_than_are_accounted_for(build: Build, bound: int) -> None:
    config, groups = build(
        privacy=EXAMPLE | {"max_groups_per_fact": bound},
        groups={"hidden_facts": 2, "stride": 1, "max_groups": 8, "max_context": 3},
    )
    most = 0
    for client in groups:
        entered = Counter(
            item
            for group in groups[client]
            for item in group.prompt.tails
            | {c.item for c in group.completions if c.source != "uniform"}
        )
        most = max(most, *entered.values())
    assert most == bound
    # What is planned counts the very groups that are trained on.
    counts = [len(groups[client]) for client in groups]
    assert plan_run(config).num_units == (min(counts), max(counts))


def test_other_units_leave_the_groups_as_they_are(build: Build) -> None:
    _, without = build(privacy={"name": "none"})
    entered = Counter(
        (client, item)
        for client in without
        for group in without[client]
        for item in group.prompt.tails
    )
    assert max(entered.values()) > 2


def test_it_trains_clients_whose_release_is_charged(build: Build) -> None:
    config, groups = build()
    base = load_base_model(config.base_model.name, device="cpu")
    policy = attach_adapter(
        base.model, lora_rank=2, lora_alpha=8, target_modules="all-linear", seed=1
    )
    charged: dict[str, Mechanism] = {}

    def charge(round_num: int, released: Mapping[str, Mechanism]) -> None:
        assert round_num == 3
        charged.update(released)

    release = ExampleRelease(1.5, fixed(0), charge)
    trainer = make_trainer(config, policy, base, groups, None, local_steps=2, release=release)
    assert isinstance(trainer, PrivateLaneTrainer)
    start = adapter_state(policy)
    clients = sorted(groups)[:2]
    done = trainer(dict.fromkeys(clients, start), round_num=3, learning_rate=0.02)
    assert not any(isinstance(client, Exception) for client in done.values())
    assert charged == {
        client: Mechanism(1.5, min(1.0, 2 / len(groups[client])), 2) for client in clients
    }

    with pytest.raises(ValueError, match="got none with example"):
        make_trainer(config, policy, base, groups, None, local_steps=2)
    plain = config.model_copy(update={"privacy": NoPrivacy()})
    with pytest.raises(ValueError, match="got one with none"):
        make_trainer(plain, policy, base, groups, None, local_steps=2, release=release)


@pytest.mark.parametrize("engine", ["sequential", "trl", "lanes"])
def test_what_cannot_be_ranked_is_refused_before_training(
    data: Path, tiny_base_folder: Path, engine: str
) -> None:
    config = tiny_experiment(data, tiny_base_folder, training={"engine": engine})
    gpt2 = GPT2LMHeadModel(GPT2Config(vocab_size=9, n_embd=8, n_layer=1, n_head=2, n_positions=8))
    with pytest.raises(ModelError, match="one of llama, qwen2, qwen3 to rank a catalogue, got gpt"):
        check_engine(config, with_random_adapter(gpt2, ["c_fc"], fan_in_fan_out=True))
