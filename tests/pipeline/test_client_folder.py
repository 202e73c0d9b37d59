import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Context, Message, RecordDict
from scipy.stats import chi2  # type: ignore[import-untyped]

from helpers.tiny_corpus import tiny_experiment, write_corpus
from pkgllm.config.schema import Experiment
from pkgllm.errors import ConfigError, DataError, FederationError
from pkgllm.federation.algorithms.scaffold import Scaffold
from pkgllm.federation.flower.deployment.folders import write_federation_keys
from pkgllm.federation.flower.grid import LocalGrid
from pkgllm.federation.flower.internals import RUN_ID, become_server
from pkgllm.federation.flower.records import (
    ARRAYS,
    CLIENT_ID,
    instruction_content,
    to_adapter,
)
from pkgllm.federation.flower.transport import FlowerTransport
from pkgllm.federation.messages import Instruction
from pkgllm.federation.rounds import RoundRecord, Rounds, run_rounds
from pkgllm.lm.adapter import adapter_state
from pkgllm.lm.base_model import load_base_model
from pkgllm.pipeline.build import (
    build_groups,
    make_policy,
    make_writer,
    populate,
    read_corpus,
)
from pkgllm.pipeline.deployment.client_folder import ClientFolder
from pkgllm.pipeline.run_record import load_base
from pkgllm.pipeline.train import build_data
from pkgllm.privacy.accounting import epsilon
from pkgllm.privacy.local_noise import LocalNoise
from pkgllm.privacy.mechanisms import Mechanism
from pkgllm.privacy.statements import written
from pkgllm.progress import Silent
from pkgllm.prompts.group_store import GroupStore


@pytest.fixture(scope="module")
def config(
    tmp_path_factory: pytest.TempPathFactory,
    tiny_base_folder: Path,
    make_dialogue: Callable[..., dict[str, Any]],
    write_redial: Callable[..., Path],
) -> Experiment:
    data = write_corpus(tmp_path_factory.mktemp("data"), make_dialogue, write_redial)
    return tiny_experiment(data, tiny_base_folder)


@pytest.fixture
def folders(config: Experiment, tmp_path: Path) -> Path:
    build_data(config, tmp_path / "built", Silent())
    write_federation_keys(tmp_path / "fed", hosts=(), clients=(), built=tmp_path / "built")
    return tmp_path / "fed" / "clients"


@pytest.mark.slow
def test_groups_of_every_client_are_those_of_the_local_runtime(
    config: Experiment, folders: Path, tmp_path: Path
) -> None:
    population = populate(config, read_corpus(config))
    choice = config.base_model
    base = load_base_model(choice.name, device=choice.device, dtype=choice.dtype)
    writer = make_writer(config.prompt, base)
    expected = build_groups(config, population, writer, tmp_path / "groups.arrow", Silent())
    assert sorted(path.name for path in folders.iterdir()) == sorted(expected)
    for client in expected:
        own = ClientFolder(folders / client)
        own.make_app(Silent())
        found = GroupStore.open(own.private / "groups.arrow")
        assert list(found) == [client]
        assert found[client] == expected[client]


def test_what_is_private_can_be_read_by_the_owner_alone(folders: Path) -> None:
    own = ClientFolder(folders / "00")
    own.make_app(Silent())
    # What is in everybody's folder is with the server as well, and nothing of anybody.
    assert {path.name for path in (folders.parent / "server").iterdir()} == {
        *("ca.crt", "catalogue.json", "clients", "executor.secret", "server.crt", "server.key")
    }
    assert own.private.stat().st_mode & 0o077 == 0
    for name in ("graph.jsonld", "client.key", "private/groups.arrow"):
        assert (folders / "00" / name).stat().st_mode & 0o077 == 0


def test_what_is_wrong_with_a_folder_is_told(folders: Path) -> None:
    own = folders / "00"
    with pytest.raises(DataError, match="no such folder"):
        ClientFolder(folders / "nobody")
    with pytest.raises(ConfigError, match=r"mode\.name must be federated, got local"):
        ClientFolder(own, ["mode={name: local, rounds: 1}"]).make_app(Silent())
    (own / "catalogue.json").write_text('{"items": [1]}')
    with pytest.raises(DataError, match=r"catalogue\.json: item 1: must be an object, got 1"):
        ClientFolder(own)
    (own / "graph.jsonld").rename(own / "elsewhere")
    with pytest.raises(DataError, match=r"must hold one of graph\.jsonld, .* got none"):
        ClientFolder(own)


def test_keys_for_built_data_are_for_those_who_train(
    config: Experiment, folders: Path, tmp_path: Path
) -> None:
    training = {split.client for split in populate(config, read_corpus(config)).in_training}
    assert {path.name for path in folders.iterdir()} == training
    (unseen, *_) = {graph.owner for graph in read_corpus(config).graphs} - training
    for clients, built, match in (
        ((unseen,), tmp_path / "built", "must be a client that trains"),
        ((), None, "--client ID or --built FOLDER must be given"),
    ):
        with pytest.raises(ConfigError, match=match):
            write_federation_keys(tmp_path / "new", hosts=(), clients=clients, built=built)
    with pytest.raises(DataError, match="must be what pkgllm data build wrote"):
        write_federation_keys(tmp_path / "new", hosts=(), clients=(), built=folders)
    assert not (tmp_path / "new").exists()


LOCAL_NOISE = (
    "privacy={name: client, mechanism: local, delta: 0.01, clip_norm: 0.1, noise_multiplier: 20, "
    "max_epsilon: 9}",
    "mode.min_updates=2",
    "adapter.lora_rank=8",
)
COUNTED = LocalNoise(clip_norm=0.1, noise_multiplier=20.0, min_shares=2)


class Device:
    """A client's process, asked by hand."""

    def __init__(self, folder: Path, *overrides: str) -> None:
        self.own = ClientFolder(folder, (*LOCAL_NOISE, *overrides))
        self.app = self.own.make_app(Silent()).flower_app
        self.initial = adapter_state(make_policy(self.own.config, load_base(self.own.config)))

    def answer(self, round_num: int = 1, counted: LocalNoise | None = COUNTED) -> Message:
        become_server()
        content = instruction_content(
            Instruction(
                adapter=self.initial,
                round_num=round_num,
                learning_rate=0.01,
                local_noise=counted,
            )
        )
        context = Context(RUN_ID, 2, {CLIENT_ID: self.own.client}, RecordDict(), {})
        return self.app(Message(content, 2, "train"), context)

    def share(self, round_num: int = 1) -> np.ndarray:
        sent = to_adapter(self.answer(round_num).content.array_records[ARRAYS])
        steps = [(sent[key] - self.initial[key]).double().numpy().ravel() for key in sorted(sent)]
        return np.concatenate(steps)

    def charged(self) -> list[int]:
        ledger = self.own.path / "privacy_ledger.jsonl"
        return [json.loads(line)["round_num"] for line in ledger.read_text().splitlines()]


@pytest.mark.slow
def test_a_device_adds_its_share_and_keeps_a_ledger_of_its_own(folders: Path) -> None:
    device = Device(folders / "00")
    share = device.share()
    assert len(share) == 8192
    std = 20.0 * 0.1 / 2**0.5
    low, high = chi2.ppf([5e-7, 1 - 5e-7], len(share))
    # The update itself is no longer than the clip norm, which is nothing beside the noise.
    for factor, fits in ((1.0, True), (0.9, False), (1.1, False)):
        assert (low <= (share**2).sum() / (factor * std) ** 2 <= high) == fits
    assert device.charged() == [1]
    # The answer was lost, the device restarted, and the server asks again.
    assert np.array_equal(Device(folders / "00").share(), share)
    assert device.charged() == [1]
    again = Device(folders / "00")
    assert abs(np.corrcoef(again.share(2), share)[0, 1]) < 6 / len(share) ** 0.5
    assert device.charged() == [1, 2]
    for path in (device.own.path / "privacy_ledger.jsonl", device.own.private):
        assert path.stat().st_mode & 0o077 == 0


@pytest.mark.slow
def test_a_device_stays_within_its_own_budget_whatever_the_server_asks(
    folders: Path, caplog: pytest.LogCaptureFixture
) -> None:
    price = epsilon([Mechanism(20.0, 1.0, 2)], delta=0.01)
    budget = f"privacy.max_epsilon={1.001 * price}"
    device = Device(folders / "00", budget)
    assert [device.answer(round_num).has_error() for round_num in (1, 2)] == [False, False]
    for asked in (device, Device(folders / "00", budget)):
        reply = asked.answer(3)
        assert reply.has_error()
        assert reply.error.reason == "client 00 raised BudgetError"
    assert "round 3 would exceed the privacy budget" in caplog.text
    assert device.charged() == [1, 2]


@pytest.mark.parametrize("counted", [None, replace(COUNTED, noise_multiplier=1.0)])
def test_a_device_answers_no_server_that_counts_on_other_noise(
    folders: Path, counted: LocalNoise | None
) -> None:
    device = Device(folders / "00")
    reply = device.answer(1, counted)
    assert reply.has_error()
    assert reply.error.reason == "client 00 raised FederationError"
    assert device.charged() == []


def test_a_device_without_local_noise_sends_no_bare_update_to_a_server_that_counts_on_it(
    folders: Path,
) -> None:
    reply = Device(folders / "00", "privacy={name: none}").answer()
    assert reply.has_error()
    assert reply.error.reason == "client 00 raised FederationError"


def test_a_device_cannot_compute_the_noise_of_a_target_nor_go_on_for_ever(folders: Path) -> None:
    target = ("privacy.noise_multiplier=null", "privacy.target_epsilon=3")
    with pytest.raises(ConfigError, match=r"noise_multiplier must be given .* privacy plan"):
        Device(folders / "00", *target)
    with pytest.raises(ConfigError, match="or it would release without end"):
        Device(folders / "00", "privacy.max_epsilon=null")
    assert not (folders / "00" / "privacy_ledger.jsonl").exists()


@pytest.mark.slow
def test_the_person_is_told_what_is_spent_and_for_whom(folders: Path) -> None:
    device = Device(folders / "00")
    device.answer(1)
    told: list[str] = []
    ClientFolder(folders / "00", LOCAL_NOISE).make_app(Silent(), told.append)
    # A value is noised by 20 * 0.1 by the root of 2.
    of_sums, of_shares = (
        written(epsilon([Mechanism(20 / part**0.5, 1.0)], delta=0.01)) for part in (1, 2)
    )
    assert told == [
        "privacy unit client, each value of an update is noised by 1.41421; epsilon "
        f"{of_sums} of 9 is spent for whoever sees only sums, and {of_shares} for the server"
    ]
    central = LOCAL_NOISE[0].replace("local", "central")
    ClientFolder(folders / "00", [central]).make_app(Silent(), told.append)
    assert "the server has the updates as they are" in told[-1]


@pytest.mark.slow
def test_control_variates_survive_a_restart_of_the_client(folders: Path, tmp_path: Path) -> None:
    scaffold = ("mode.strategy={name: scaffold}", "training.optimizer=sgd")

    def rounds(folder: Path, first: int, last: int, start: RoundRecord | None) -> RoundRecord:
        own = ClientFolder(folder, scaffold)
        app = own.make_app(Silent())
        seen: list[RoundRecord] = []
        policy = make_policy(own.config, load_base(own.config))
        run_rounds(
            FlowerTransport(LocalGrid(app, ["00"])),
            Rounds(
                algorithm=Scaffold(),
                local_steps=own.config.training.local_steps,
                initial=start.adapter if start else adapter_state(policy),
                num_rounds=last,
                cohort_size=1,
                seed=0,
                learning_rate=lambda round_num: 0.5,
                timeout=60,
                on_round=seen.append,
                first_round=first,
                state=start.state if start else None,
            ),
        )
        return seen[-1]

    shutil.copytree(folders / "00", tmp_path / "restarted")
    alive = rounds(folders / "00", 1, 3, None)
    before = rounds(tmp_path / "restarted", 1, 2, None)
    after = rounds(tmp_path / "restarted", 3, 3, before)
    for key, value in alive.adapter.items():
        assert torch.equal(after.adapter[key], value), key
    for key, value in alive.state.items():
        assert torch.equal(after.state[key], value), key
    states = tmp_path / "restarted" / "private" / "client_states"
    assert states.stat().st_mode & 0o077 == 0
    # Without its control variate the client says so, instead of starting from another one.
    shutil.rmtree(states)
    with pytest.raises(FederationError, match="0 did; failed are 00"):
        rounds(tmp_path / "restarted", 3, 3, before)
