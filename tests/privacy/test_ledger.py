import json
import os
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pkgllm.errors import PrivacyError, RunError
from pkgllm.privacy.accounting import epsilon
from pkgllm.privacy.ledger import ChargedBefore, Head, Ledger
from pkgllm.privacy.mechanisms import RUN, Mechanism, NeighboringRelation

LOUD, QUIET = Mechanism(2.0, 0.1, 5), Mechanism(1.0, 0.2, 5)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.jsonl"


@pytest.fixture
def filled(path: Path) -> Ledger:
    ledger = Ledger.create(path, unit="example")
    ledger.charge(1, {"ann": LOUD, "bob": QUIET})
    ledger.charge(2, {"bob": QUIET, "eve": LOUD})
    return ledger


def test_what_was_charged_is_there_after_a_restart(path: Path, filled: Ledger) -> None:
    again = Ledger.open(path, unit="example", at=filled.head)
    assert again.head == filled.head == Head(4, again.head.digest)
    assert again.clients == ("ann", "bob", "eve")
    assert again.history("ann") == again.history("eve") == (LOUD,)
    assert again.history("bob") == (Mechanism(1.0, 0.2, 10),)
    assert again.history("nobody") == ()


def test_a_line_says_what_was_released(path: Path, filled: Ledger) -> None:
    first = json.loads(path.read_text().splitlines()[0])
    chain = first.pop("chain")
    assert len(bytes.fromhex(chain)) == 32
    assert first == {
        "number": 1,
        "round_num": 1,
        "unit": "example",
        "client": "ann",
        "noise_multiplier": 2.0,
        "sampling_probability": 0.1,
        "steps": 5,
        "neighboring_relation": "add_or_remove_one",
    }


def test_only_its_owner_reads_it(path: Path, filled: Ledger) -> None:
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.slow
def test_clients_spend_apart_and_the_worst_one_counts(filled: Ledger) -> None:
    spent = filled.spent(delta=1e-3)
    assert spent == epsilon(filled.history("bob"), delta=1e-3)
    assert spent == epsilon([Mechanism(1.0, 0.2, 10)], delta=1e-3)
    assert 0 < epsilon(filled.history("ann"), delta=1e-3) < spent
    assert filled.spent(delta=1e-3, accountant="rdp") > spent


def test_a_round_that_is_done_again_is_charged_again(path: Path) -> None:
    ledger = Ledger.create(path, unit="client")
    at = ledger.charge(1, {RUN: LOUD})
    ledger.charge(2, {RUN: LOUD})
    # The process died before round 2 had its checkpoint.
    again = Ledger.open(path, unit="client", at=at)
    again.charge(2, {RUN: LOUD})
    assert again.history() == (Mechanism(2.0, 0.1, 15),)


@pytest.mark.slow
def test_a_budget_ends_before_it_is_exceeded(path: Path) -> None:
    ledger = Ledger.create(path, unit="client")
    budget, rounds = 8.0, 0
    while not ledger.would_exceed(budget, {RUN: QUIET}, delta=1e-3, accountant="rdp"):
        ledger.charge(rounds + 1, {RUN: QUIET})
        rounds += 1
    spent = ledger.spent(delta=1e-3, accountant="rdp")
    assert rounds > 0
    assert spent <= budget < epsilon([*ledger.history(), QUIET], delta=1e-3, accountant="rdp")


def test_asking_whether_a_budget_holds_charges_nothing(path: Path, filled: Ledger) -> None:
    before = (path.read_bytes(), filled.head, filled.history("bob"))
    filled.would_exceed(1.0, {"bob": QUIET}, delta=1e-3)
    assert (path.read_bytes(), filled.head, filled.history("bob")) == before


def edited(content: str) -> str:
    return content.replace('"noise_multiplier":1.0', '"noise_multiplier":9.0', 1)


def without_a_line(content: str) -> str:
    lines = content.splitlines(keepends=True)
    return "".join([lines[0], *lines[2:]])


def swapped(content: str) -> str:
    lines = content.splitlines(keepends=True)
    return "".join([lines[1], lines[0], *lines[2:]])


def doubled(content: str) -> str:
    lines = content.splitlines(keepends=True)
    return "".join([*lines, lines[-1]])


@pytest.mark.parametrize(
    ("spoil", "piece"),
    [
        (edited, "line 2 was edited, or one before it is missing"),
        (without_a_line, "line 2 was edited, or one before it is missing"),
        (swapped, "line 1 was edited, or one before it is missing"),
        (doubled, "line 5 was edited, or one before it is missing"),
        (lambda content: content[:-1], "line 4 is cut off"),
        (lambda content: content[:-40], "line 4 is cut off"),
        (lambda content: f"{content}nonsense\n", "line 5 is no entry"),
        (lambda content: f"{content}[]\n", "line 5 is no entry"),
        (lambda content: f"{content}{{}}\n", "line 5 was edited"),
        (lambda content: "", "must hold the 4 lines that it is known to have had, holds 0"),
        (
            lambda content: "".join(content.splitlines(keepends=True)[:-1]),
            "must hold the 4 lines that it is known to have had, holds 3",
        ),
    ],
)
def test_a_ledger_that_is_not_whole_is_refused(
    path: Path, filled: Ledger, spoil: Callable[[str], str], piece: str
) -> None:
    path.write_text(spoil(path.read_text()))
    with pytest.raises(PrivacyError) as refused:
        Ledger.open(path, unit="example", at=filled.head)
    assert str(refused.value).startswith(f"privacy ledger {path}: {piece}")
    assert "the budget is never counted from 0 again" in str(refused.value)


def test_a_missing_ledger_is_refused(path: Path, filled: Ledger) -> None:
    path.unlink()
    for at in (None, filled.head):
        with pytest.raises(PrivacyError, match="missing, although the run has begun"):
            Ledger.open(path, unit="example", at=at)
    with pytest.raises(PrivacyError, match="missing, although the run has begun"):
        filled.charge(3, {"ann": LOUD})


def test_another_runs_ledger_is_refused(path: Path, filled: Ledger, tmp_path: Path) -> None:
    other = Ledger.create(tmp_path / "other", unit="example")
    other.charge(1, {"ann": QUIET, "bob": QUIET})
    other.charge(2, {"bob": QUIET, "eve": QUIET})
    (tmp_path / "other").replace(path)
    with pytest.raises(PrivacyError, match="holds 4 which are cut or others"):
        Ledger.open(path, unit="example", at=filled.head)


def test_a_ledger_of_the_other_unit_is_refused(path: Path, filled: Ledger) -> None:
    with pytest.raises(PrivacyError, match="line 1 was edited"):
        Ledger.open(path, unit="client")


def test_a_ledger_that_somebody_else_writes_is_refused(path: Path, filled: Ledger) -> None:
    Ledger.open(path, unit="example").charge(3, {"ann": LOUD})
    before = path.read_bytes()
    with pytest.raises(PrivacyError, match="was changed by somebody else"):
        filled.charge(3, {"ann": LOUD})
    assert path.read_bytes() == before


def test_a_run_does_not_begin_where_a_ledger_is(path: Path, filled: Ledger) -> None:
    before = path.read_bytes()
    with pytest.raises(PrivacyError, match="must not exist when a run begins, but does"):
        Ledger.create(path, unit="example")
    assert path.read_bytes() == before


def test_with_unit_client_all_spend_together(path: Path) -> None:
    ledger = Ledger.create(path, unit="client")
    with pytest.raises(ValueError, match="with unit client all is charged to 'run', got 'ann'"):
        ledger.charge(1, {"ann": LOUD})
    assert path.read_bytes() == b""


def test_with_unit_client_and_known_cohorts_each_client_spends_for_itself(path: Path) -> None:
    ledger = Ledger.create(path, unit="client")
    known = Mechanism(1.0, 1.0, neighboring_relation=NeighboringRelation.ZERO_OUT_ONE)
    ledger.charge(1, {"ann": known, "bob": known})
    ledger.charge(2, {"ann": known})
    again = Ledger.open(path, unit="client", at=ledger.head)
    assert again.history("ann") == (replace(known, steps=2),)
    assert again.history("bob") == (known,)
    assert again.spent(delta=0.01) == epsilon(again.history("ann"), delta=0.01)


def test_a_full_disk_charges_nothing_and_lets_nothing_leave(
    path: Path, filled: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, head, write = path.read_bytes(), filled.head, os.write

    def half_then_full(file: int, content: bytes) -> int:
        if len(content) < 200:
            raise OSError(28, "No space left on device")
        return write(file, bytes(content[:-100]))

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", half_then_full)
        with pytest.raises(RunError, match="No space left on device"):
            filled.charge(3, {"ann": LOUD})
    assert (path.read_bytes(), filled.head) == (before, head)
    filled.charge(3, {"ann": LOUD})
    assert Ledger.open(path, unit="example").head == filled.head


def test_a_charge_is_on_the_disk_before_it_returns(
    path: Path, filled: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[bytes] = []
    fsync = os.fsync

    def seen(file: int) -> None:
        fsync(file)
        synced.append(path.read_bytes())

    monkeypatch.setattr(os, "fsync", seen)
    filled.charge(3, {"ann": LOUD, "bob": LOUD})
    assert synced == [path.read_bytes()]
    assert synced[0].count(b"\n") == 6


CHARGES = st.lists(
    st.dictionaries(st.text(max_size=5), st.sampled_from([LOUD, QUIET]), min_size=1, max_size=3),
    max_size=5,
)


@pytest.mark.slow
@given(CHARGES, CHARGES)
def test_any_ledger_opens_at_any_of_its_checkpoints(
    tmp_path_factory: pytest.TempPathFactory,
    before: list[dict[str, Mechanism]],
    after: list[dict[str, Mechanism]],
) -> None:
    path = tmp_path_factory.mktemp("ledger") / "ledger.jsonl"
    ledger = Ledger.create(path, unit="example")
    for round_num, mechanisms in enumerate(before, start=1):
        ledger.charge(round_num, mechanisms)
    at = ledger.head
    for round_num, mechanisms in enumerate(after, start=1):
        ledger.charge(round_num, mechanisms)
    again = Ledger.open(path, unit="example", at=at)
    assert again.head == ledger.head
    assert [again.history(c) for c in again.clients] == [ledger.history(c) for c in ledger.clients]


@pytest.mark.slow
def test_ten_thousand_clients_are_priced_as_the_few_histories_they_have(path: Path) -> None:
    clients = [f"{number:05}" for number in range(10_000)]
    ledger = Ledger.create(path, unit="example")
    ledger.charge(1, dict.fromkeys(clients, QUIET))
    ledger.charge(2, dict.fromkeys(clients[:200], QUIET))
    assert ledger.spent(delta=1e-3) == epsilon([Mechanism(1.0, 0.2, 10)], delta=1e-3)
    assert Ledger.open(path, unit="example", at=ledger.head).clients == tuple(clients)


def test_another_process_sees_that_the_newest_charge_is_what_it_is_about_to_release(
    path: Path, filled: Ledger
) -> None:
    charged = ChargedBefore(path)
    charged(2, {"eve": LOUD, "bob": QUIET})
    charged(1, {"ann": LOUD})
    filled.charge(3, {"eve": QUIET})
    charged(3, {"eve": QUIET})


@pytest.mark.parametrize(
    ("round_num", "mechanism"),
    [
        (3, QUIET),
        (1, QUIET),
        (2, LOUD),
        (2, Mechanism(1.0, 0.2, 6)),
        (2, Mechanism(1.0, 0.21, 5)),
        (2, Mechanism(0.9, 0.2, 5)),
    ],
)
def test_another_process_releases_nothing_that_was_not_charged(
    path: Path, filled: Ledger, round_num: int, mechanism: Mechanism
) -> None:
    with pytest.raises(PrivacyError, match=r"the newest charge is .* in round 2"):
        ChargedBefore(path)(round_num, {"eve": LOUD, "bob": mechanism})


def test_another_process_releases_nothing_of_a_client_that_has_no_charge(
    path: Path, filled: Ledger
) -> None:
    with pytest.raises(PrivacyError, match="nothing was ever charged to tom"):
        ChargedBefore(path)(2, {"bob": QUIET, "tom": QUIET})
    path.unlink()
    with pytest.raises(RunError, match="cannot read"):
        ChargedBefore(path)(2, {"bob": QUIET})
