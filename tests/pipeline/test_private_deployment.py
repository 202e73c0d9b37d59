"""The privacy unit example between real processes: what reaches the server, what a client keeps."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from helpers.private_releases import (
    CLIP_NORM,
    LOUD,
    QUIET,
    gradient_norms,
    is_loud,
    num_values,
    one_release,
)
from helpers.real_federation import RealFederation, free_port, kill, real_federation
from helpers.tiny_corpus import write_corpus
from pkgllm.config.load import dump_config
from pkgllm.federation.flower.deployment.folders import write_federation_keys
from pkgllm.pipeline.train import build_data
from pkgllm.privacy.statements import read_guarantee, statement
from pkgllm.progress import Silent

LOUD_ONE, QUIET_ONE, SPENT = "00", "01", "02"
"""Who drowns its gradient, who shows it within the clip norm, and who has no budget left."""


@pytest.mark.slow
def test_noise_clip_and_ledger_hold_between_real_processes_and_past_a_kill(
    tmp_path: Path,
    tiny_base_folder: Path,
    make_dialogue: Callable[..., dict[str, Any]],
    write_redial: Callable[..., Path],
) -> None:
    people = (LOUD_ONE, QUIET_ONE, SPENT)
    data = write_corpus(tmp_path / "data", make_dialogue, write_redial, clients=people)
    mode: dict[str, Any] = {"rounds": 2, "cohort_size": 3, "round_timeout": 240.0}
    local = one_release(data, tiny_base_folder, noise_multiplier=LOUD, **mode)
    build_data(local, tmp_path / "built", Silent())
    write_federation_keys(tmp_path / "fed", hosts=(), clients=(), built=tmp_path / "built")
    address = f"127.0.0.1:{free_port()}"
    runtime = {"name": "deployment", "superlink": address, "keys": "fed/server"}
    deployed = one_release(data, tiny_base_folder, noise_multiplier=LOUD, **mode, runtime=runtime)
    (tmp_path / "deployed.yaml").write_text(dump_config(deployed))

    with real_federation(tmp_path) as federation:
        _run(federation, address)
        assert federation.reached() == ""

    run = tmp_path / "deployed"
    rounds = [json.loads(line) for line in (run / "metrics.jsonl").open()]
    size = num_values(run / "adapter")
    assert [line["cohort"] for line in rounds] == [list(people)] * 2
    for line in rounds:
        assert line["failed"] == {SPENT: f"client {SPENT} raised BudgetError"}
        assert line["max_epsilon"] == 1e12
        assert "epsilon" not in line
        least, greatest = gradient_norms(line)
        assert is_loud(greatest, size)
        assert not any(is_loud(greatest, size, noise_multiplier=w * LOUD) for w in (0.9, 1.1))
        assert least == pytest.approx(CLIP_NORM, rel=1e-3)

    # The quiet one was killed between the charge and the answer of round 2, so it paid twice.
    charged = {person: _charged(tmp_path / "fed" / "clients" / person) for person in people}
    assert charged == {
        LOUD_ONE: [(1, LOUD), (2, LOUD)],
        QUIET_ONE: [(1, QUIET), (2, QUIET), (2, QUIET)],
        SPENT: [],
    }
    assert not list(run.rglob("privacy_ledger*")), "the server counts nothing"
    guarantee = read_guarantee(run)
    assert guarantee is not None
    assert statement(guarantee) == (
        "Privacy: epsilon at most 1000000000000.00 at delta 0.01; unit example, add or remove one; "
        "accountant prv; each client's ledger is on its device."
    )


def _charged(folder: Path) -> list[tuple[int, float]]:
    entries = map(json.loads, (folder / "privacy_ledger.jsonl").read_text().splitlines())
    return [(entry["round_num"], entry["noise_multiplier"]) for entry in entries]


def _run(federation: RealFederation, address: str) -> None:
    def client(person: str, *overrides: str) -> tuple[str, ...]:
        given = [part for override in overrides for part in ("--set", override)]
        return ("federation", "client", f"fed/clients/{person}", "--superlink", address, *given)

    quiet = client(QUIET_ONE, f"privacy.noise_multiplier={QUIET}")
    flag, port = federation.folder / "fallen", address.split(":")[1]
    federation.start("server", "federation", "server", "fed/server", "--port", port)
    federation.start("loud", *client(LOUD_ONE))
    federation.start("spent", *client(SPENT, "privacy.max_epsilon=1e-9"))
    falling = federation.start("falling", str(flag), "2", *quiet, script="falling.py")
    federation.wait_for(lambda: "is up" in federation.said("server"), 180)
    training = federation.start("train", "train", "-c", "deployed.yaml", "-o", "deployed")
    federation.wait_for(lambda: flag.exists() or training.poll() is not None, 240)
    assert training.poll() is None
    kill(falling)
    federation.start("again", *quiet)
    assert training.wait(240) == 0
    assert f"client {QUIET_ONE} went away and is back" in federation.said("train")
    assert "epsilon 0.00 of" not in federation.said("again")
    # Why it refused stands with the client, and with nobody else.
    assert "would exceed the privacy budget" in federation.said("spent")
    assert "would exceed" not in federation.said("train")
