import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_corpus import tiny_experiment, write_corpus

from pkgllm.config.schema import Experiment
from pkgllm.errors import ConfigError, DataError, FederationError
from pkgllm.experiment.assembly import (
    build_groups,
    make_policy,
    make_writer,
    populate,
    read_corpus,
)
from pkgllm.experiment.client_folder import ClientFolder, read_catalogue, write_catalogue
from pkgllm.experiment.federation_setup import write_federation_keys
from pkgllm.experiment.jobs import build_data
from pkgllm.experiment.run_record import load_base
from pkgllm.federation.rounds import RoundRecord
from pkgllm.federation.server_app import make_server_app, run_in_process
from pkgllm.federation.strategies import make_strategy
from pkgllm.lm.adapter import adapter_state
from pkgllm.lm.base_model import load_base_model
from pkgllm.preferences.group_store import GroupStore
from pkgllm.progress import Silent


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


def test_a_catalogue_is_read_back_equal(config: Experiment, tmp_path: Path) -> None:
    catalogue = read_corpus(config).catalogue
    write_catalogue(catalogue, tmp_path / "catalogue.json")
    found = read_catalogue(tmp_path / "catalogue.json")
    assert [(item.id, item.name) for item in found] == [(i.id, i.name) for i in catalogue]


def test_what_is_wrong_with_a_folder_is_told(folders: Path) -> None:
    own = folders / "00"
    with pytest.raises(DataError, match="no such folder"):
        ClientFolder(folders / "nobody")
    with pytest.raises(ConfigError, match=r"mode\.name must be federated, got local"):
        ClientFolder(own, ["mode={name: local, rounds: 1}"]).make_app(Silent())
    federated = "mode={name: federated, rounds: 1, cohort_size: 2}"
    noised_elsewhere = "privacy={name: client, delta: 1e-3, clip_norm: 1, noise_multiplier: 1}"
    with pytest.raises(ConfigError, match=r"privacy\.name client is not there yet"):
        ClientFolder(own, [federated, noised_elsewhere]).make_app(Silent())
    (own / "catalogue.json").write_text('{"items": [1]}')
    with pytest.raises(DataError, match=r"catalogue\.json: must hold a catalogue"):
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


def test_control_variates_survive_a_restart_of_the_client(folders: Path, tmp_path: Path) -> None:
    scaffold = ("mode.strategy={name: scaffold}", "training.optimizer=sgd")

    def rounds(folder: Path, first: int, last: int, start: RoundRecord | None) -> RoundRecord:
        own = ClientFolder(folder, scaffold)
        app = own.make_app(Silent())
        seen: list[RoundRecord] = []
        policy = make_policy(own.config, load_base(own.config))
        server = make_server_app(
            strategy=make_strategy(
                "scaffold", {"server_learning_rate": 1.0}, clients=["00"], local_steps=1
            ),
            initial=start.adapter if start else adapter_state(policy),
            num_rounds=last,
            cohort_size=1,
            seed=0,
            learning_rate=lambda round_num: 0.5,
            timeout=60,
            on_round=seen.append,
            first_round=first,
            strategy_state=start.strategy_state if start else None,
        )
        run_in_process(server, app, ["00"])
        return seen[-1]

    shutil.copytree(folders / "00", tmp_path / "restarted")
    alive = rounds(folders / "00", 1, 3, None)
    before = rounds(tmp_path / "restarted", 1, 2, None)
    after = rounds(tmp_path / "restarted", 3, 3, before)
    for key, value in alive.adapter.items():
        assert torch.equal(after.adapter[key], value), key
    for key, value in alive.strategy_state.items():
        assert torch.equal(after.strategy_state[key], value), key
    assert (tmp_path / "restarted" / "private" / "controls").stat().st_mode & 0o077 == 0
    # Without its control variate the client says so, instead of starting from another one.
    (tmp_path / "restarted" / "private" / "controls").unlink()
    with pytest.raises(FederationError, match="0 did; failed are 00"):
        rounds(tmp_path / "restarted", 3, 3, before)
