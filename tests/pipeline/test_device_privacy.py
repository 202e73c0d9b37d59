"""A client's own ledger: what it refuses, what it survives, and what reaches the server of it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from helpers.tiny_corpus import tiny_experiment, write_corpus
from pkgllm.errors import BudgetError, ConfigError, PrivacyError
from pkgllm.federation.algorithms.fedavg import FedAvg
from pkgllm.federation.flower.deployment.folders import write_federation_keys
from pkgllm.federation.flower.grid import LocalGrid
from pkgllm.federation.flower.transport import FlowerTransport
from pkgllm.federation.rounds import RoundRecord, Rounds, run_rounds
from pkgllm.lm.adapter import adapter_state
from pkgllm.pipeline.build import make_policy
from pkgllm.pipeline.deployment.client_folder import ClientFolder
from pkgllm.pipeline.run_record import load_base
from pkgllm.pipeline.train import build_data
from pkgllm.privacy.accounting import epsilon
from pkgllm.privacy.device_ledger import DevicePrivacy
from pkgllm.privacy.mechanisms import Mechanism
from pkgllm.privacy.unit import Participation
from pkgllm.privacy.units.example import ExamplePrivacy
from pkgllm.progress import Silent
from pkgllm.prompts.group_store import GroupStore

ONE_ROUND = Mechanism(2.0, 0.25, 3)
BUDGET = 1.001 * epsilon([Mechanism(2.0, 0.25, 9)], delta=0.01)
"""Room for three rounds."""


def section(**keys: Any) -> ExamplePrivacy:
    tree = {
        "delta": 0.01,
        "clip_norm": 0.5,
        "noise_multiplier": 2.0,
        "max_epsilon": BUDGET,
        "expected_batch_size": 2,
    }
    return ExamplePrivacy(**{**tree, **keys})


def opened(folder: Path, *, num_groups: int = 8, **keys: Any) -> DevicePrivacy:
    (folder / "private").mkdir(exist_ok=True)
    return DevicePrivacy(
        section(**keys),
        Participation(
            num_clients=1,
            num_groups={"ann": num_groups},
            rounds=3,
            steps_per_round=3,
            cohort_size=1,
            min_updates=1,
            rounds_by_client=lambda rounds: {"ann": rounds},
        ),
        ledger=folder / "privacy_ledger.jsonl",
        head=folder / "private" / "privacy_head.json",
    )


def charged(folder: Path) -> list[int]:
    lines = (folder / "privacy_ledger.jsonl").read_text().splitlines()
    return [json.loads(line)["round_num"] for line in lines]


@pytest.mark.slow
def test_the_budget_is_that_of_all_lives_and_all_runs(tmp_path: Path) -> None:
    opened(tmp_path).charge(1, {"ann": ONE_ROUND})
    opened(tmp_path).charge(2, {"ann": ONE_ROUND})
    # Another run begins with round 1 again, and finds what is left.
    third = opened(tmp_path)
    third.charge(1, {"ann": ONE_ROUND})
    with pytest.raises(BudgetError, match="round 2 would exceed the privacy budget of"):
        third.charge(2, {"ann": ONE_ROUND})
    assert charged(tmp_path) == [1, 2, 1]
    assert third.spent == pytest.approx(epsilon([Mechanism(2.0, 0.25, 9)], delta=0.01))
    # The person may allow more.
    opened(tmp_path, max_epsilon=2 * BUDGET).charge(2, {"ann": ONE_ROUND})
    assert (tmp_path / "privacy_ledger.jsonl").stat().st_mode & 0o777 == 0o600


def test_it_says_what_is_spent(tmp_path: Path) -> None:
    privacy = opened(tmp_path, max_epsilon=5.0)
    assert "noise multiplier 2; epsilon 0.00 of 5 is spent" in str(privacy)
    privacy.charge(1, {"ann": Mechanism(2.0, 1.0, 4)})
    assert "epsilon 0.00" not in str(privacy)


@pytest.mark.parametrize("harm", ["missing", "edited", "cut", "cut whole"])
def test_a_ledger_that_was_touched_is_refused_and_never_begun_anew(
    tmp_path: Path, harm: str
) -> None:
    privacy = opened(tmp_path)
    privacy.charge(1, {"ann": ONE_ROUND})
    privacy.charge(2, {"ann": ONE_ROUND})
    ledger = tmp_path / "privacy_ledger.jsonl"
    lines = ledger.read_text().splitlines(keepends=True)
    if harm == "missing":
        ledger.unlink()
    elif harm == "edited":
        edited = lines[0].replace('"noise_multiplier":2.0', '"noise_multiplier":9.0')
        ledger.write_text("".join([edited, lines[1]]))
    else:
        ledger.write_text("" if harm == "cut whole" else lines[0])
    with pytest.raises(PrivacyError, match="the budget is never counted from 0 again"):
        opened(tmp_path)


def test_who_empties_the_private_folder_keeps_the_budget(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    opened(tmp_path).charge(1, {"ann": ONE_ROUND})
    head = tmp_path / "private" / "privacy_head.json"
    written = head.read_text()
    head.unlink()
    opened(tmp_path).charge(2, {"ann": ONE_ROUND})
    assert charged(tmp_path) == [1, 2]
    assert "privacy_head.json is missing" in caplog.text
    # It may be older than the ledger, where the process ended between the two.
    head.write_text(written)
    assert opened(tmp_path).spent > 0
    head.write_text("{}")
    with pytest.raises(PrivacyError, match=r"privacy_head\.json: must"):
        opened(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(("num_groups", "probability"), [(20, 0.1), (1, 1.0)])
def test_the_noise_is_that_of_the_clients_own_groups_in_every_round(
    tmp_path: Path, num_groups: int, probability: float
) -> None:
    privacy = opened(
        tmp_path,
        num_groups=num_groups,
        noise_multiplier=None,
        target_epsilon=3.0,
        max_epsilon=None,
    )
    whole = epsilon([Mechanism(privacy.noise_multiplier, probability, 9)], delta=0.01)
    assert 2.95 < whole <= 3.0
    assert privacy.release.noise_multiplier == privacy.noise_multiplier
    assert not privacy.release.noise.reproducible


def test_what_bounds_nothing_is_refused_before_a_ledger_begins(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="must be given to a client that keeps its own ledger"):
        opened(tmp_path, max_epsilon=None)
    with pytest.raises(PrivacyError, match="because there are 100 examples of a client"):
        opened(tmp_path, num_groups=100)
    assert not (tmp_path / "privacy_ledger.jsonl").exists()


@pytest.fixture(scope="module")
def built(
    tmp_path_factory: pytest.TempPathFactory,
    tiny_base_folder: Path,
    make_dialogue: Callable[..., dict[str, Any]],
    write_redial: Callable[..., Path],
) -> Path:
    """Data of two people with the unit example, and a budget for two of four rounds."""
    root = tmp_path_factory.mktemp("built")
    data = write_corpus(root / "data", make_dialogue, write_redial, clients=("00", "01"))
    two = 1.001 * epsilon([Mechanism(2.0, 1.0, 2)], delta=0.01)
    config = tiny_experiment(
        data,
        tiny_base_folder,
        clients={"unseen_share": 0.0},
        mode={"name": "federated", "rounds": 4, "cohort_size": 1},
        objective={"name": "apo_zero"},
        privacy=section(max_epsilon=two, expected_batch_size=9),
    )
    build_data(config, root / "built", Silent())
    return root / "built"


@pytest.fixture
def folder(built: Path, tmp_path: Path) -> Path:
    write_federation_keys(tmp_path / "fed", hosts=(), clients=(), built=built)
    return tmp_path / "fed" / "clients" / "00"


def rounds(folder: Path) -> list[RoundRecord]:
    """Train with one client, which begins a new life, until its budget is spent."""
    own = ClientFolder(folder)
    seen: list[RoundRecord] = []
    initial = adapter_state(make_policy(own.config, load_base(own.config)))
    run_rounds(
        FlowerTransport(LocalGrid(own.make_app(Silent()), ["00"])),
        Rounds(
            algorithm=FedAvg(),
            initial=initial,
            num_rounds=4,
            cohort_size=1,
            seed=0,
            learning_rate=lambda round_num: 0.1,
            timeout=60,
            on_round=seen.append,
        ),
    )
    return seen


@pytest.mark.slow
def test_a_client_charges_itself_and_what_reaches_the_server_is_the_type_of_its_refusal(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    seen = rounds(folder)
    assert [record.round_num for record in seen] == [1, 2]
    assert charged(folder) == [1, 2]
    (entry, _) = map(json.loads, (folder / "privacy_ledger.jsonl").read_text().splitlines())
    groups = GroupStore.open(folder / "private" / "groups.arrow")
    # Fewer groups than a step draws on average, so each is drawn.
    assert groups.num_groups("00") < 9
    assert (entry["client"], entry["unit"]) == ("00", "example")
    assert (entry["noise_multiplier"], entry["sampling_probability"]) == (2.0, 1.0)
    (left_out,) = [m for m in caplog.messages if "is left out" in m]
    assert left_out == "round 3: client 00 is left out: client 00 raised BudgetError"
    assert any("round 3: at least 1 of 1 clients must" in m for m in caplog.messages)
    assert any("client 00 failed: BudgetError: round 3 would" in m for m in caplog.messages)
    # A new life has no new budget, and a run without any round is none.
    with pytest.raises(BudgetError, match="the privacy budgets of 1 are spent"):
        rounds(folder)
    assert charged(folder) == [1, 2]


def test_the_person_is_told_what_is_spent(folder: Path) -> None:
    told: list[str] = []
    ClientFolder(folder).make_app(Silent(), told.append)
    (line,) = told
    assert "privacy unit example, noise multiplier 2; epsilon 0.00 of" in line
