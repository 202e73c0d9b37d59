import errno
import os
import stat
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.quadratic_clients import adapter_at, entries, same_bytes
from helpers.reply_lists import some_adapter
from pkgllm.errors import FederationError, RunError
from pkgllm.federation.control_store import ControlStore


def made(folder: Path, clients: str = "abc") -> ControlStore:
    return ControlStore(folder / "controls", list(clients), adapter_at(0.0))


def test_what_is_written_is_read_by_whoever_opens_the_file(tmp_path: Path) -> None:
    control = {key: value.T.contiguous().T for key, value in some_adapter(0).items()}
    store = ControlStore(tmp_path / "controls", ["b", "a"], control)
    store.write("b", control, round_num=3, accepted_round=0)
    again = ControlStore(tmp_path / "controls", ["a", "b"], control)
    assert same_bytes(again.read("b", accepted_round=3), control)
    assert entries(again.read("a", accepted_round=0)) == {0.0}
    with pytest.raises(FederationError, match=r"round 3, has those of rounds \[\]; resume from"):
        again.read("a", accepted_round=3)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=15))
def test_the_accepted_one_is_never_overwritten(
    tmp_path_factory: pytest.TempPathFactory, rounds: list[tuple[str, bool]]
) -> None:
    folder = tmp_path_factory.mktemp("run")
    accepted = dict.fromkeys("abc", 0)
    for round_num, (client, is_accepted) in enumerate(rounds, start=1):
        store = made(folder)
        store.write(
            client,
            adapter_at(float(round_num)),
            round_num=round_num,
            accepted_round=accepted[client],
        )
        if is_accepted:
            accepted[client] = round_num
        for each, last in accepted.items():
            assert entries(store.read(each, accepted_round=last)) == {float(last)}


def test_a_round_that_is_run_again_starts_from_the_same_and_may_come_to_another(
    tmp_path: Path,
) -> None:
    store = made(tmp_path)
    store.write("a", adapter_at(1.0), round_num=1, accepted_round=0)
    for value in (2.0, 3.0):
        store.write("a", adapter_at(value), round_num=2, accepted_round=1)
        assert entries(store.read("a", accepted_round=1)) == {1.0}
        assert entries(store.read("a", accepted_round=2)) == {value}


def test_a_write_that_breaks_off_leaves_the_accepted_one_and_is_of_no_round(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = made(tmp_path)
    store.write("a", adapter_at(1.0), round_num=1, accepted_round=0)
    store.write("a", adapter_at(2.0), round_num=2, accepted_round=1)

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fdatasync", full)
    with pytest.raises(RunError, match=r"cannot write .*controls: No space left on device; free"):
        store.write("a", adapter_at(3.0), round_num=3, accepted_round=2)
    for opened in (store, made(tmp_path)):
        assert entries(opened.read("a", accepted_round=2)) == {2.0}
        for lost in (1, 3):
            with pytest.raises(FederationError, match=r"has those of rounds \[2\]"):
                opened.read("a", accepted_round=lost)


def test_the_file_is_private_and_takes_room_only_for_whom_it_holds(tmp_path: Path) -> None:
    like = {"layer.lora_A": torch.zeros(1 << 16)}
    store = ControlStore(tmp_path / "controls", [f"p{n}" for n in range(1000)], like)
    store.write("p3", like, round_num=1, accepted_round=0)
    found = (tmp_path / "controls").stat()
    assert stat.S_IMODE(found.st_mode) == 0o600
    assert found.st_size > 2 * 1000 * 4 << 16
    assert found.st_blocks * 512 < 4 << 20
    assert [path.name for path in tmp_path.iterdir()] == ["controls"]


def test_a_file_of_others_is_refused(tmp_path: Path) -> None:
    made(tmp_path)
    others = (
        ("abd", adapter_at(0.0)),
        ("ab", adapter_at(0.0)),
        ("abc", some_adapter(0)),
    )
    for clients, like in others:
        with pytest.raises(FederationError, match="holds others; take another folder"):
            ControlStore(tmp_path / "controls", list(clients), like)


def test_a_client_that_is_not_in_it_is_an_error(tmp_path: Path) -> None:
    store = made(tmp_path)
    with pytest.raises(FederationError, match="holds no client 'd'"):
        store.read("d", accepted_round=0)
    with pytest.raises(FederationError, match="holds no client 'd'"):
        store.write("d", adapter_at(0.0), round_num=1, accepted_round=0)


def test_a_place_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="cannot use the clients' control variates in"):
        made(tmp_path / "nowhere")
