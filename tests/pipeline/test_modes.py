from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest
import torch

from helpers.tiny_corpus import tiny_experiment
from pkgllm.config import schema
from pkgllm.errors import ConfigError
from pkgllm.lm.adapter import AdapterState, adapter_state, attach_adapter, read_adapter_state
from pkgllm.lm.base_model import load_base_model
from pkgllm.pipeline.build import (
    build_groups,
    make_writer,
    populate,
    read_corpus,
)
from pkgllm.pipeline.modes import train_policy
from pkgllm.pipeline.privacy import check_cohort
from pkgllm.pipeline.training_run import TrainingRun
from pkgllm.progress import Silent
from pkgllm.prompts.group_store import GroupStore
from pkgllm.prompts.groups import Group
from pkgllm.runs.checkpoints import Checkpoints
from pkgllm.runs.folder import RunFolder, client_adapter
from pkgllm.runs.observer import Observer
from pkgllm.training.local import LocalSteps, TrainedClient
from pkgllm.training.reference import ReferenceColumn
from pkgllm.training.sequential import SequentialTrainer, reference_scorer

pytest_plugins = ["helpers.finished_runs"]

Groups = Mapping[str, tuple[Group, ...]]


class Recorded(GroupStore):
    """Remembers whose groups were read."""

    def __init__(self, store: GroupStore) -> None:
        super().__init__(store.path, {client: store.num_groups(client) for client in store})
        self.read: list[str] = []

    def __getitem__(self, client: str) -> tuple[Group, ...]:
        self.read.append(client)
        return super().__getitem__(client)


@dataclass(frozen=True)
class Trained:
    """What a mode left, and what is needed to do the same by hand."""

    run: Path
    groups: Groups
    read: frozenset[str]
    """Whose groups the mode read."""
    start: AdapterState
    by_hand: Callable[..., SequentialTrainer]
    atol: float
    """How far the mode's engine may be from what is done by hand."""

    @property
    def adapter(self) -> AdapterState:
        return read_adapter_state(self.run / "adapter")


Train = Callable[[dict[str, Any]], Trained]


@pytest.fixture(params=["lanes", "sequential"])
def train(
    request: pytest.FixtureRequest, data: Path, tiny_base_folder: Path, tmp_path: Path
) -> Train:
    def train(mode: dict[str, Any]) -> Trained:
        engine = {"engine": request.param}
        config = tiny_experiment(data, tiny_base_folder, mode=mode, training=engine)
        base = load_base_model(str(tiny_base_folder), device="cpu")
        population = populate(config, read_corpus(config))
        writer = make_writer(config.prompt, base)
        groups = Recorded(
            build_groups(config, population, writer, tmp_path / "groups.arrow", Silent())
        )
        policy = attach_adapter(
            base.model, lora_rank=2, lora_alpha=8, target_modules="all-linear", seed=1
        )
        start = adapter_state(policy)

        def by_hand(groups: Groups = groups, local_steps: int = 1) -> SequentialTrainer:
            return SequentialTrainer(
                policy,
                groups,
                config.objective,
                ReferenceColumn(reference_scorer(policy)),
                steps=LocalSteps(local_steps=local_steps, groups_per_step=2),
                seed=config.seed,
            )

        run = RunFolder.create(tmp_path / "run")
        checkpoints = Checkpoints(run.path, keep=1)
        observer = Observer(run)
        train_policy(
            TrainingRun(config, policy, base, groups, run, Silent(), observer, checkpoints)
        )
        # What the policy carries afterwards is what the run folder holds, and what is ranked.
        assert_same(adapter_state(policy), read_adapter_state(run.path / "adapter"), atol=0)
        # By hand it is done with the sequential engine, which the other one rounds differently.
        atol = 1e-4 if config.training.engine == "lanes" else 0
        return Trained(run.path, groups, frozenset(groups.read), start, by_hand, atol)

    return train


def assert_same(one: AdapterState, other: AdapterState, *, atol: float) -> None:
    torch.testing.assert_close(one, other, atol=atol, rtol=0)


def train_one(
    trainer: SequentialTrainer,
    client: str,
    state: AdapterState,
    *,
    round_num: int,
    learning_rate: float,
) -> AdapterState:
    done = trainer({client: state}, round_num=round_num, learning_rate=learning_rate)[client]
    assert isinstance(done, TrainedClient)
    return done.adapter


def far_apart(one: AdapterState, other: AdapterState) -> bool:
    return max((one[key] - other[key]).abs().max().item() for key in one) > 1e-3


@pytest.mark.slow
def test_a_round_with_everybody_gives_the_mean_of_their_adapters(train: Train) -> None:
    done = train({"name": "federated", "rounds": 1, "cohort_size": 10})
    trainer = done.by_hand()
    states = [
        train_one(trainer, client, done.start, round_num=1, learning_rate=0.02)
        for client in done.groups
    ]
    assert len(states) == 10
    mean = {key: torch.stack([s[key] for s in states]).mean(0) for key in done.start}
    assert_same(done.adapter, mean, atol=max(done.atol, 1e-6))
    assert all(far_apart(state, mean) for state in states)


@pytest.mark.slow
def test_federated_training_reads_the_groups_of_those_who_are_drawn_alone(train: Train) -> None:
    done = train({"name": "federated", "rounds": 2, "cohort_size": 2})
    records = RunFolder(done.run).read_metrics()
    drawn = {client for record in records for client in cast(list[str], record["cohort"])}
    assert 2 <= len(drawn) <= 4
    assert done.read == drawn < set(done.groups)


@pytest.mark.slow
def test_centralized_training_is_one_client_with_everybodys_groups(train: Train) -> None:
    done = train({"name": "centralized", "rounds": 2, "cohort_size": 3})
    pooled = tuple(group for client in sorted(done.groups) for group in done.groups[client])
    # One local step for each of the three clients that a federated round would draw.
    trainer = done.by_hand({"pooled": pooled}, local_steps=3)
    state = done.start
    for round_num, rate in ((1, 0.02), (2, 0.01)):
        state = train_one(trainer, "pooled", state, round_num=round_num, learning_rate=rate)
    assert_same(done.adapter, state, atol=done.atol)
    assert far_apart(state, done.start)


@pytest.mark.slow
def test_local_training_gives_everybody_their_own_adapter_and_strangers_a_fresh_one(
    train: Train,
) -> None:
    done = train({"name": "local", "rounds": 2})
    assert {folder.name for folder in (done.run / "adapters").iterdir()} == set(done.groups)
    trainer = done.by_hand()
    for client in sorted(done.groups)[:3]:
        state = done.start
        for round_num, rate in ((1, 0.02), (2, 0.01)):
            state = train_one(trainer, client, state, round_num=round_num, learning_rate=rate)
        assert_same(read_adapter_state(client_adapter(done.run, client)), state, atol=done.atol)
        assert far_apart(state, done.start)
    assert_same(done.adapter, done.start, atol=0)


def test_any_id_makes_a_folder_of_its_own(tmp_path: Path) -> None:
    ids = ["7", ".", "..", "1.5", "a/b", "a%2Fb", "Zoë", "a b", "/etc"]
    folders = [client_adapter(tmp_path, client) for client in ids]
    assert len(set(folders)) == len(ids)
    for folder in folders:
        assert folder.resolve().parent == tmp_path.resolve() / "adapters"


def test_a_cohort_must_not_be_larger_than_the_clients_that_train() -> None:
    groups: Groups = {f"p{number}": () for number in range(10)}
    check_cohort(schema.Federated(name="federated", rounds=1, cohort_size=10), groups)
    check_cohort(schema.Centralized(name="centralized", rounds=1, cohort_size=99), groups)
    check_cohort(schema.Local(name="local", rounds=1), groups)
    with pytest.raises(ConfigError) as caught:
        check_cohort(schema.Federated(name="federated", rounds=1, cohort_size=11), groups)
    assert str(caught.value) == (
        "mode.cohort_size must be at most the number of training clients, 10, got 11; lower it"
    )
