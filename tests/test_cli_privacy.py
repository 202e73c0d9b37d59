"""``pkgllm privacy``, and what is refused of a privacy section, through the command line."""

import json
from pathlib import Path

import pytest

from helpers.command_line import TRAIN, Refuse, RunCommand, snapshot

PLAN = ("privacy", "plan", "-c", "small.yaml")


def client(**keys: object) -> str:
    section = {"name": "client", "delta": 0.01, "clip_norm": 0.1, "noise_multiplier": 1.0, **keys}
    return _section(section)


def example(**keys: object) -> str:
    section = {
        "name": "example",
        "delta": 0.01,
        "clip_norm": 1,
        "noise_multiplier": 1.0,
        "expected_batch_size": 1,
        **keys,
    }
    return _section(section)


def _section(section: dict[str, object]) -> str:
    keys = ", ".join(f"{key}: {value}" for key, value in section.items() if value is not None)
    return f"privacy={{{keys}}}"


@pytest.mark.slow
def test_a_plan_of_the_unit_client(pkgllm: RunCommand, workplace: Path) -> None:
    before = snapshot(workplace)
    done = pkgllm(*PLAN, "--set", client(max_epsilon=3), "--set", "mode.rounds=4")
    assert done.code == 0, done.err
    text = " ".join(done.out.split())
    assert "unit client, add or remove one; accountant prv" in text
    assert "training clients 5" in text
    assert "sampling probability 0.4" in text
    assert "noisy steps 4" in text
    assert "budget 3" in text
    assert "Warning: 5 clients are too few to hide one among them" in text
    assert snapshot(workplace) == before


@pytest.mark.slow
def test_a_plan_of_the_unit_example(pkgllm: RunCommand, workplace: Path) -> None:
    section = example(target_epsilon=4, noise_multiplier=None, accountant="rdp")
    changes = ("--set", section)
    done = pkgllm(*PLAN, *changes, "--set", "objective.name=apo_zero", "--set", "mode.rounds=3")
    assert done.code == 0, done.err
    text = " ".join(done.out.split())
    assert "of one fact, which enters at most 2 groups, epsilon" in text
    assert "computed from target_epsilon" in text
    assert "examples among which one is hidden 1 to 2" in text or "one is hidden 2" in text


@pytest.mark.slow
def test_delta_that_is_too_large_for_the_clients_is_warned_of_and_not_trained(
    pkgllm: RunCommand, refuse: Refuse
) -> None:
    planned = pkgllm(*PLAN, "--set", client(delta=0.2))
    assert planned.code == 0
    assert "Warning: delta 0.2 is not below 1 / 5" in " ".join(planned.out.split())
    sentence = refuse(*TRAIN, "--set", client(delta=0.2))
    assert "privacy.delta must be below 1 / 5 = 0.2, because there are 5 training clients" in (
        sentence
    )


@pytest.mark.slow
@pytest.mark.parametrize("command", [PLAN, TRAIN], ids=["plan", "train"])
@pytest.mark.parametrize(
    ("change", "code", "pieces"),
    [
        (client(delta=None), 2, ("privacy.delta: missing",)),
        (client(delta=0), 2, ("privacy.delta: must be a number above 0 and below 1, got 0",)),
        (client(delta=1), 2, ("privacy.delta: must be a number above 0 and below 1, got 1",)),
        (client(clip_norm=0), 2, ("privacy.clip_norm: must be a number above 0, got 0",)),
        (client(noise_multiplier=None), 2, ("has neither; give the noise itself",)),
        (client(target_epsilon=3), 2, ("has both, 1 and 3; leave one out",)),
        (
            client(noise_multiplier=None, target_epsilon=0.001, delta=0.000001),
            1,
            ("privacy.target_epsilon 0.001 cannot be reached", "gives epsilon"),
        ),
        (example(), 2, ("objective.name kto does not go with", "use apo_zero")),
    ],
)
def test_a_guarantee_that_cannot_be(
    refuse: Refuse, command: tuple[str, ...], change: str, code: int, pieces: tuple[str, ...]
) -> None:
    sentence = refuse(*command, "--set", change, code=code)
    assert all(piece in sentence for piece in pieces), sentence


@pytest.mark.parametrize(
    ("changes", "piece"),
    [
        ((client(), "mode.weighting=examples"), "mode.weighting must be uniform"),
        ((client(), "mode={name: local, rounds: 1}"), "set privacy.name to none"),
        ((client(), "mode={name: centralized, rounds: 1}"), "to example or none"),
        (
            (example(), "objective.name=sft", "training.engine=sequential"),
            "training.engine must be lanes",
        ),
    ],
)
def test_what_a_privacy_unit_does_not_go_with(
    refuse: Refuse, changes: tuple[str, ...], piece: str
) -> None:
    changed = [part for change in changes for part in ("--set", change)]
    assert piece in refuse("config", "check", "small.yaml", *changed, code=2)


@pytest.mark.slow
def test_kto_with_a_public_baseline_trains_under_the_unit_example(
    pkgllm: RunCommand, workplace: Path
) -> None:
    changes = (
        *("--set", example(noise_multiplier=0.5, accountant="rdp")),
        *("--set", "objective={name: kto, kl_baseline: public, nll_weight: 0.5}"),
        *("--set", "mode.rounds=2"),
    )
    done = pkgllm(*TRAIN, *changes)
    assert done.code == 0, done.err
    assert "Privacy: epsilon" in " ".join(done.out.split())
    rounds = [*map(json.loads, Path("runs/new/metrics.jsonl").read_text().splitlines())]
    assert rounds[0]["kl_baseline"] == 0.0
    assert all(line["kl_baseline"] >= 0 for line in rounds)
    assert len(rounds) == 2


def test_without_a_unit_there_is_nothing_to_plan(refuse: Refuse) -> None:
    sentence = refuse(*PLAN, code=2)
    assert "privacy.name is none, so there is nothing to plan; set it to example or client" in (
        sentence
    )


def test_a_cohort_larger_than_the_clients_cannot_be_planned(refuse: Refuse) -> None:
    sentence = refuse(*PLAN, "--set", client(), "--set", "mode.cohort_size=6", code=2)
    assert "mode.cohort_size must be at most the number of training clients, 5, got 6" in sentence


def test_privacy_alone_tells_its_commands(pkgllm: RunCommand, workplace: Path) -> None:
    done = pkgllm("privacy")
    assert done.code == 2
    assert "plan" in done.err


LOCAL = (
    *("--set", client(mechanism="local", noise_multiplier=4.0)),
    *("--set", "mode={name: federated, rounds: 3, cohort_size: 4, min_updates: 4}"),
)


def test_a_plan_of_local_noise_says_what_is_promised_to_whom(
    pkgllm: RunCommand, workplace: Path
) -> None:
    before = snapshot(workplace)
    done = pkgllm(*PLAN, *LOCAL)
    assert done.code == 0, done.err
    text = " ".join(done.out.split())
    assert "for whoever sees only sums of at least 4 shares of the noise, and epsilon" in text
    assert "for the server, which sees single shares; unit client, zero out one" in text
    assert "sampling probability 1" in text
    assert "shares that make it up 4, mode.min_updates" in text
    assert "noise multiplier of one share 2" in text
    assert snapshot(workplace) == before


@pytest.mark.slow
def test_an_audit_of_local_noise_looks_at_sums_and_at_shares(
    pkgllm: RunCommand, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    done = pkgllm("privacy", "audit", "-c", "small.yaml", *LOCAL, "--canaries", "200")
    assert done.code in (0, 1), done.err
    text = " ".join(done.out.split())
    for case in ("one client moves it", "noise, scale over", "correlation between clients"):
        assert f"one share {case}" in text


@pytest.mark.slow
def test_a_run_with_local_noise_from_end_to_end(pkgllm: RunCommand, workplace: Path) -> None:
    done = pkgllm(*TRAIN, *LOCAL)
    assert done.code == 0, done.err
    text = " ".join(done.out.split())
    assert "for whoever sees only sums of at least 4 shares of the noise, and epsilon" in text
    ledger = (workplace / "runs/new/privacy_ledger.jsonl").read_text().splitlines()
    assert len(ledger) == 3 * 4
    reported = pkgllm("report", "runs/new")
    assert reported.code == 0, reported.err
    written = (workplace / "runs/new/report/report.md").read_text()
    assert "which sees single shares; unit client, zero out one" in written


def test_local_noise_has_no_noisy_count(refuse: Refuse) -> None:
    clipping = "{count_noise_std: 9}"
    said = refuse(*TRAIN, "--set", client(mechanism="local", adaptive_clipping=clipping), code=2)
    assert "privacy.adaptive_clipping does not go with privacy.mechanism local" in said
