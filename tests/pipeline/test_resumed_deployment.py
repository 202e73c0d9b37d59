"""A private deployment whose server is killed in a round and goes on: no ledger begins anew."""

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from helpers.real_federation import free_port, real_federation
from helpers.tiny_corpus import tiny_experiment, write_corpus
from pkgllm.config.load import dump_config
from pkgllm.federation.flower.deployment.folders import write_federation_keys
from pkgllm.pipeline.train import build_data
from pkgllm.privacy.accounting import epsilon
from pkgllm.privacy.mechanisms import Mechanism
from pkgllm.progress import Silent

PERSON = "00"
DELTA, NOISE = 0.01, 20.0
CLIENT = {"name": "client", "mechanism": "local"}
EXAMPLE = {"name": "example", "expected_batch_size": 1}


@pytest.mark.slow
@pytest.mark.parametrize("unit", [CLIENT, EXAMPLE], ids=["client", "example"])
def test_ledgers_go_on_where_they_were_when_the_server_was_killed(
    tmp_path: Path,
    tiny_base_folder: Path,
    make_dialogue: Callable[..., dict[str, Any]],
    write_redial: Callable[..., Path],
    unit: dict[str, Any],
) -> None:
    data = write_corpus(tmp_path / "data", make_dialogue, write_redial, clients=[PERSON])
    address = f"127.0.0.1:{free_port()}"
    runtime = {"name": "deployment", "superlink": address, "keys": "fed/server"}
    mode = {"name": "federated", "rounds": 2, "cohort_size": 1, "round_timeout": 240.0}
    config = tiny_experiment(
        data,
        tiny_base_folder,
        clients={"unseen_share": 0.0},
        groups={"max_groups": 1},
        objective={"name": "sft"},
        mode={**mode, "runtime": runtime},
        privacy={
            "delta": DELTA,
            "clip_norm": 0.1,
            "noise_multiplier": NOISE,
            "max_epsilon": 9.0,
            **unit,
        },
    )
    build_data(config, tmp_path / "built", Silent())
    write_federation_keys(tmp_path / "fed", hosts=(), clients=(), built=tmp_path / "built")
    (tmp_path / "deployed.yaml").write_text(dump_config(config))

    run, device = tmp_path / "deployed", tmp_path / "fed" / "clients" / PERSON
    with real_federation(tmp_path) as federation:
        port = address.split(":")[1]
        federation.start("server", "federation", "server", "fed/server", "--port", port)
        person = ("federation", "client", f"fed/clients/{PERSON}", "--superlink", address)
        federation.start("person", *person)
        federation.wait_for(lambda: "is up" in federation.said("server"), 180)
        command = ("train", "-c", "deployed.yaml", "-o", "deployed")
        killed = federation.start("killed", "2", *command, script="falling_server.py")
        assert killed.wait(240) == -signal.SIGKILL
        before = {folder: ledger(folder) for folder in (run, device)}
        assert len(metrics(run)) == 1, "nothing may have come of round 2"
        assert charged(device) == [1, 2]
        resumed = federation.start("resumed", "train", "--resume", "deployed")
        assert resumed.wait(240) == 0
        assert federation.reached() == ""

    for folder, lines in before.items():
        assert ledger(folder)[: len(lines)] == lines, "a ledger only grows"
    assert [line["round_num"] for line in metrics(run)] == [1, 2]
    assert [line["failed"] for line in metrics(run)] == [{}, {}]
    if unit is EXAMPLE:
        assert charged(device) == [1, 2, 2], "what is released anew is paid for again"
        assert charged(run) == []
    else:
        assert charged(device) == [1, 2], "the share is the one that was paid for"
        assert charged(run) == [1, 2, 2], "the server pays for what it asks for"
        spent = [epsilon([Mechanism(NOISE, 1.0, steps)], delta=DELTA) for steps in (1, 3)]
        assert [line["epsilon"] for line in metrics(run)] == pytest.approx(spent)


def metrics(run: Path) -> list[dict[str, Any]]:
    """What each round told."""
    return [json.loads(line) for line in (run / "metrics.jsonl").open()]


def ledger(folder: Path) -> list[dict[str, Any]]:
    """The lines of a ledger; none where there is none."""
    file = folder / "privacy_ledger.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def charged(folder: Path) -> list[int]:
    """The round of each charge, in the ledger's order."""
    return [entry["round_num"] for entry in ledger(folder)]
