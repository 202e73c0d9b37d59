from pathlib import Path

import pytest
import yaml

from helpers.command_line import Refuse, RunCommand, small_config
from pkgllm.pipeline.evaluate import evaluate_run
from pkgllm.progress import Silent


@pytest.fixture
def keys(pkgllm: RunCommand, workplace: Path) -> None:
    assert pkgllm("data", "build", "-c", "small.yaml", "-o", "built").code == 0
    done = pkgllm("federation", "keys", "--built", "built", "-o", "fed")
    assert done.code == 0
    # Six people, of whom the small configuration keeps one out of training.
    assert (
        done.out
        == "the server's folder is fed/server\nthe folders of 5 clients are in fed/clients\n"
    )


@pytest.fixture
def deployed(workplace: Path, tiny_base_folder: Path) -> None:
    config = small_config(tiny_base_folder)
    config["mode"]["runtime"] = {
        "name": "deployment",
        "superlink": "127.0.0.1:9",
        "keys": "fed/server",
    }
    Path("deployed.yaml").write_text(yaml.safe_dump(config))


def test_keys_need_to_know_the_clients(refuse: Refuse) -> None:
    sentence = refuse("federation", "keys", "-o", "fed", code=2)
    assert sentence == "pkgllm: --client ID or --built FOLDER must be given, to know the clients"


def test_keys_are_not_made_over_others(keys: None, refuse: Refuse) -> None:
    sentence = refuse("federation", "keys", "--client", "1", "-o", "fed")
    assert "fed: must be new or empty, holds files; keys are never replaced" in sentence


def test_server_and_training_need_the_roster(deployed: None, refuse: Refuse) -> None:
    for command in (
        ("federation", "server", "nowhere"),
        ("train", "-c", "deployed.yaml", "-o", "runs/new"),
    ):
        assert "must hold one ID.pub for each client that may take part" in refuse(*command)


def test_a_client_needs_its_own_folder(keys: None, refuse: Refuse) -> None:
    assert "no such folder; name that of one client" in refuse("federation", "client", "nobody")
    (client, *_) = sorted(Path("fed/clients").iterdir())
    (client / "client.key").write_text("no key")
    sentence = refuse("federation", "client", str(client), may_write=True)
    assert "client.key: must be a private key of OpenSSH" in sentence


def test_a_cohort_must_not_need_more_clients_than_there_are(
    keys: None, deployed: None, refuse: Refuse
) -> None:
    command = ("train", "-c", "deployed.yaml", "-o", "runs/new", "--set", "mode.cohort_size=9")
    sentence = refuse(*command, code=2)
    assert (
        "mode.cohort_size must be at most the number of keys in fed/server/clients, 5" in sentence
    )


def test_noise_of_clients_elsewhere_cannot_be_fixed(deployed: None, refuse: Refuse) -> None:
    command = ("train", "-c", "deployed.yaml", "-o", "runs/new", "--insecure-fixed-noise")
    sentence = refuse(*command, code=2)
    assert "--insecure-fixed-noise does not go with mode.runtime deployment" in sentence


CLIENT = "privacy={name: client, delta: 0.01, clip_norm: 0.1, noise_multiplier: 20"


@pytest.mark.slow
def test_a_plan_counts_the_clients_that_the_server_knows(
    keys: None, deployed: None, pkgllm: RunCommand
) -> None:
    (one, *_) = sorted(Path("fed/server/clients").iterdir())
    one.unlink()
    for mechanism, line in (("central", "sampling probability 0.5"), ("local", "zero out one")):
        section = f"{CLIENT}, mechanism: {mechanism}}}"
        done = pkgllm("privacy", "plan", "-c", "deployed.yaml", "--set", section)
        assert done.code == 0, done.err
        text = " ".join(done.out.split())
        assert "training clients 4" in text
        assert line in text


def test_what_a_promise_to_devices_needs(keys: None, deployed: None, refuse: Refuse) -> None:
    train = ("train", "-c", "deployed.yaml", "-o", "runs/new")
    local = f"{CLIENT}, mechanism: local}}"
    sentence = refuse(*train, "--set", local, "--insecure-fixed-noise", code=2)
    assert "whose clients draw their own noise, but for privacy.mechanism central" in sentence
    target = local.replace("noise_multiplier", "target_epsilon")
    sentence = refuse(*train, "--set", target, code=2)
    assert "privacy.noise_multiplier must be given with privacy.mechanism local" in sentence
    sentence = refuse(*train, "--set", f"{CLIENT}}}".replace("0.01", "0.2"))
    assert "privacy.delta must be below 1 / 5" in sentence


def test_a_superlink_out_of_reach_is_told(
    keys: None, deployed: None, refuse: Refuse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pkgllm.pipeline.deployment.server._CONNECT_SECONDS", 0.0)
    sentence = refuse("train", "-c", "deployed.yaml", "-o", "runs/new")
    assert "SuperLink 127.0.0.1:9: cannot be reached" in sentence
    assert "start it with pkgllm federation server" in sentence


def test_a_deployed_run_is_evaluated_on_people_whose_data_are_here(
    workplace: Path, pkgllm: RunCommand
) -> None:
    # What the server of a deployed run writes beside the adapter.
    run = Path("runs/earlier")
    (run / "split.json").write_text('{"digest": null, "left_out": [], "clients": {}}')
    (run / "liked_in_training.json").write_text('{"clients": []}')
    done = pkgllm("evaluate", str(run))
    assert done.code == 1
    assert "the run was trained on clients' own machines" in done.err
    (report,) = evaluate_run(
        run, Silent(), data=Path("data"), overrides=["evaluation.baselines.names=[]"]
    )
    assert report.results["models"]
