import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from flwr.proto.control_pb2 import ListRunsRequest
from scipy.stats import chi2  # type: ignore[import-untyped]

from helpers.real_federation import RealFederation, free_port, kill, real_federation
from helpers.tiny_corpus import tiny_experiment, write_corpus
from pkgllm.config.load import dump_config
from pkgllm.errors import ConfigError
from pkgllm.federation.flower.deployment.folders import write_federation_keys
from pkgllm.federation.flower.deployment.superlink import SuperLink
from pkgllm.lm.adapter import adapter_state, read_adapter_state, update_norm
from pkgllm.pipeline.build import make_policy
from pkgllm.pipeline.deployment.server import train_deployed
from pkgllm.pipeline.run_record import load_base
from pkgllm.pipeline.train import build_data, train
from pkgllm.progress import Silent

PEOPLE = ("00", "01", "02")
PUBLIC = {"name": "kto", "kl_baseline": "public", "nll_weight": 0.5}


def read_metrics(run: Path) -> list[dict[str, Any]]:
    file = run / "metrics.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


@pytest.mark.slow
def test_a_killed_client_is_asked_again_and_the_adapter_is_that_of_the_local_runtime(
    tmp_path: Path,
    tiny_base_folder: Path,
    make_dialogue: Callable[..., dict[str, Any]],
    write_redial: Callable[..., Path],
) -> None:
    data = write_corpus(tmp_path / "data", make_dialogue, write_redial, clients=PEOPLE)
    mode = {"name": "federated", "rounds": 2, "cohort_size": 3, "round_timeout": 120.0}
    local = tiny_experiment(
        data, tiny_base_folder, clients={"unseen_share": 0.0}, mode=mode, objective=PUBLIC
    )
    train(local, tmp_path / "local", Silent())
    build_data(local, tmp_path / "built", Silent())
    write_federation_keys(tmp_path / "fed", hosts=(), clients=(), built=tmp_path / "built")
    address = f"127.0.0.1:{free_port()}"
    runtime = {"name": "deployment", "superlink": address, "keys": "fed/server"}
    # The server has nobody's dialogues; public prompts are made of the catalogue beside its keys.
    deployed = tiny_experiment(
        tmp_path / "nowhere", tiny_base_folder, mode={**mode, "runtime": runtime}, objective=PUBLIC
    )
    (tmp_path / "deployed.yaml").write_text(dump_config(deployed))

    with real_federation(tmp_path) as federation:
        _run(federation, address)
        assert federation.reached() == ""
        guarded = set((tmp_path / "network.guarded").read_text().split())
        assert len(guarded) >= 10, "each process, and Flower's in it, must be watched"

    run = tmp_path / "deployed"
    rounds = read_metrics(run)
    assert [line["failed"] for line in rounds] == [{}, {}]
    assert [line["cohort"] for line in rounds] == [list(PEOPLE)] * 2
    baselines = [line["kl_baseline"] for line in read_metrics(tmp_path / "local")]
    assert [line["kl_baseline"] for line in rounds] == baselines
    assert baselines[0] == 0 < baselines[1]
    expected = read_adapter_state(tmp_path / "local" / "adapter")
    found = read_adapter_state(run / "adapter")
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, atol=0, rtol=0)
    assert not list(run.rglob("*.arrow")), "nothing private may be with the server"


def _run(federation: RealFederation, address: str) -> None:
    port = address.split(":")[1]
    server = federation.start("server", "federation", "server", "fed/server", "--port", port)
    alive = {}
    for person in PEOPLE[:2]:
        arguments = ("federation", "client", f"fed/clients/{person}", "--superlink", address)
        alive[person] = federation.start(person, *arguments)
    last = ("federation", "client", f"fed/clients/{PEOPLE[2]}", "--superlink", address)
    flag = federation.folder / "fallen"
    falling = federation.start("falling", str(flag), "2", *last, script="falling.py")
    federation.wait_for(lambda: "is up" in federation.said("server"), 180)
    training = federation.start("train", "train", "-c", "deployed.yaml", "-o", "deployed")
    federation.wait_for(lambda: flag.exists() or training.poll() is not None, 240)
    assert training.poll() is None
    kill(falling)
    assert len(read_metrics(federation.folder / "deployed")) == 1
    federation.start("again", *last)
    assert training.wait(240) == 0
    assert f"client {PEOPLE[2]} went away and is back" in federation.said("train")
    assert server.poll() is None
    assert all(process.poll() is None for process in alive.values())


def test_a_server_without_a_catalogue_cannot_make_public_prompts(
    tmp_path: Path, tiny_base_folder: Path
) -> None:
    write_federation_keys(tmp_path / "fed", hosts=(), clients=("00",), built=None)
    keys = tmp_path / "fed" / "server"
    runtime = {"name": "deployment", "superlink": "127.0.0.1:1", "keys": str(keys)}
    mode = {"name": "federated", "rounds": 2, "cohort_size": 1, "runtime": runtime}
    config = tiny_experiment(tmp_path, tiny_base_folder, mode=mode, objective=PUBLIC)
    with pytest.raises(ConfigError, match=r"catalogue\.json is missing; copy catalogue\.json of a"):
        train_deployed(config, tmp_path / "run", Silent())
    assert list((tmp_path / "run").iterdir()) == []


@pytest.mark.slow
def test_ctrl_c_stops_the_run_and_a_strangers_run_is_refused(
    tmp_path: Path, tiny_base_folder: Path
) -> None:
    write_federation_keys(tmp_path / "fed", hosts=(), clients=("00",), built=None)
    port = free_port()
    address = f"127.0.0.1:{port}"
    runtime = {"name": "deployment", "superlink": address, "keys": "fed/server"}
    mode = {"name": "federated", "rounds": 2, "cohort_size": 1, "runtime": runtime}
    config = tiny_experiment(tmp_path, tiny_base_folder, mode=mode)
    (tmp_path / "deployed.yaml").write_text(dump_config(config))
    link = SuperLink(address, tmp_path / "fed" / "server" / "ca.crt")

    def status_by_run() -> dict[int, str]:
        with link._control() as control:
            runs = control.ListRuns(ListRunsRequest()).run_dict
        return {
            run_id: f"{run.status.status} {run.status.sub_status}" for run_id, run in runs.items()
        }

    with real_federation(tmp_path) as federation:
        federation.start("server", "federation", "server", "fed/server", "--port", str(port))
        federation.wait_for(lambda: "is up" in federation.said("server"), 180)
        stranger = link._start_run()
        training = federation.start("train", "train", "-c", "deployed.yaml", "-o", "deployed")
        # No client comes, so the server waits for it.
        federation.wait_for(lambda: "running " in status_by_run().values(), 60)
        assert status_by_run()[stranger] == "finished failed"
        training.send_signal(signal.SIGINT)
        assert training.wait(30) == 1
        assert "pkgllm: stopped; what was written stays" in federation.said("train")
        assert "Traceback" not in federation.said("train")
        assert sorted(status_by_run().values()) == ["finished failed", "finished stopped"]
        assert federation.reached() == ""
    assert list((tmp_path / "deployed").iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("mechanism", ["central", "local"])
def test_a_deployment_releases_noise_of_its_standard_deviation_and_no_other(
    tmp_path: Path,
    tiny_base_folder: Path,
    make_dialogue: Callable[..., dict[str, Any]],
    write_redial: Callable[..., Path],
    mechanism: str,
) -> None:
    data = write_corpus(tmp_path / "data", make_dialogue, write_redial, clients=PEOPLE)
    address = f"127.0.0.1:{free_port()}"
    config = tiny_experiment(
        data,
        tiny_base_folder,
        clients={"unseen_share": 0.0},
        adapter={"lora_rank": 8},
        mode={
            "name": "federated",
            "rounds": 2,
            "cohort_size": 2,
            "round_timeout": 120.0,
            "runtime": {
                "name": "deployment",
                "superlink": address,
                "keys": "fed/server",
                "clients_timeout": 40.0,
            },
        },
        privacy={
            "name": "client",
            "mechanism": mechanism,
            "delta": 0.01,
            "clip_norm": 0.1,
            "noise_multiplier": 20.0,
            "max_epsilon": 9.0,
        },
    )
    build_data(config, tmp_path / "built", Silent())
    write_federation_keys(tmp_path / "fed", hosts=(), clients=(), built=tmp_path / "built")
    (tmp_path / "deployed.yaml").write_text(dump_config(config))
    fixed = ("--insecure-fixed-noise",) if mechanism == "central" else ()
    with real_federation(tmp_path) as federation:
        port = address.split(":")[1]
        federation.start("server", "federation", "server", "fed/server", "--port", port)
        # The third is known, and never there.
        for person in PEOPLE[:2]:
            folder = f"fed/clients/{person}"
            federation.start(person, "federation", "client", folder, "--superlink", address)
        federation.wait_for(lambda: "is up" in federation.said("server"), 60)
        for person in PEOPLE[:2]:
            federation.wait_for(lambda: "is ready" in federation.said(person), 120)  # noqa: B023
        training = federation.start(
            "train", "train", "-c", "deployed.yaml", "-o", "deployed", *fixed
        )
        assert training.wait(240) == 0
        assert federation.reached() == ""
        told = federation.said("train")

    run = tmp_path / "deployed"
    rounds = read_metrics(run)
    ledger = read_ledger(run)
    assert [line["round_num"] for line in rounds] == [1, 2]
    if mechanism == "central":
        assert "Privacy: not private, because its noise comes from the seed of the run" in told
        assert [line.keys() & {"cohort", "failed"} for line in rounds] == [set(), set()]
        charged = {(entry["client"], entry["sampling_probability"]) for entry in ledger}
        assert charged == {("run", 2 / 3)}
        stds = [20.0 * 0.1 / 2] * 2
    else:
        assert "for everybody, the server included; unit client, zero out one" in told
        assert [(e["round_num"], e["client"]) for e in ledger] == [
            (line["round_num"], client) for line in rounds for client in line["cohort"]
        ]
        came = [set(line["cohort"]) - set(line["failed"]) for line in rounds]
        absent = [set(line["cohort"]) & {PEOPLE[2]} for line in rounds]
        assert [set(line["failed"]) for line in rounds] == absent
        for person in PEOPLE:
            own = read_ledger(tmp_path / "fed" / "clients" / person)
            answered = [number for number, who in enumerate(came, start=1) if person in who]
            assert [entry["round_num"] for entry in own] == answered
        stds = [20.0 * 0.1 * len(who) ** 0.5 / 2 for who in came]
    for line, std in zip(rounds, stds, strict=True):
        assert fits(line["update_norm"], std)
        assert not fits(line["update_norm"], 0.9 * std)
        assert not fits(line["update_norm"], 1.1 * std)
    initial = adapter_state(make_policy(config, load_base(config)))
    total = update_norm(initial, read_adapter_state(run / "adapter"))
    both = (stds[0] ** 2 + stds[1] ** 2) ** 0.5
    assert fits(total, both)
    assert not fits(total, 0.9 * both)


def fits(length: float, std: float) -> bool:
    """Whether as many values as the adapter has are as long with this deviation, at 1e-6."""
    low, high = chi2.ppf([5e-7, 1 - 5e-7], 8192)
    return bool(low <= (length / std) ** 2 <= high)


def read_ledger(folder: Path) -> list[dict[str, Any]]:
    file = folder / "privacy_ledger.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
