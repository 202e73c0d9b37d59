import errno
import os
import stat
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.algorithm_steps import some_adapter
from helpers.quadratic_clients import adapter_at, entries, same_bytes
from pkgllm.errors import FederationError, RunError
from pkgllm.federation.client_state import ClientStates


def test_what_is_written_is_read_by_whoever_opens_the_folder(tmp_path: Path) -> None:
    state = {key: value.T.contiguous().T for key, value in some_adapter(0).items()}
    ClientStates(tmp_path).write("b", state, round_num=3, accepted_round=0)
    again = ClientStates(tmp_path)
    read = again.read("b", 3)
    assert same_bytes({key: read[key] for key in state}, state)
    assert again.rounds("a") == ()
    with pytest.raises(FederationError, match=r"'a' .* round 3, has those of rounds \[\]; resume"):
        again.read("a", 3)


@pytest.mark.slow
@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=15))
def test_the_accepted_one_is_never_overwritten_and_no_more_than_two_stay(
    tmp_path_factory: pytest.TempPathFactory, rounds: list[tuple[str, bool]]
) -> None:
    states = ClientStates(tmp_path_factory.mktemp("run") / "states")
    accepted = dict.fromkeys("abc", 0)
    for round_num, (client, is_accepted) in enumerate(rounds, start=1):
        states.write(
            client,
            adapter_at(float(round_num)),
            round_num=round_num,
            accepted_round=accepted[client],
        )
        if is_accepted:
            accepted[client] = round_num
        for each, last in accepted.items():
            assert len(states.rounds(each)) <= 2
            if last:
                assert entries(states.read(each, last)) == {float(last)}


def test_a_round_that_is_run_again_starts_from_the_same_and_may_come_to_another(
    tmp_path: Path,
) -> None:
    states = ClientStates(tmp_path)
    states.write("a", adapter_at(1.0), round_num=1, accepted_round=0)
    for value in (2.0, 3.0):
        states.write("a", adapter_at(value), round_num=2, accepted_round=1)
        assert entries(states.read("a", 1)) == {1.0}
        assert entries(states.read("a", 2)) == {value}


def test_a_write_that_breaks_off_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    states = ClientStates(tmp_path)
    states.write("a", adapter_at(1.0), round_num=1, accepted_round=0)
    states.write("a", adapter_at(2.0), round_num=2, accepted_round=1)

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError, match=r"cannot write .*: No space left on device; free"):
        states.write("a", adapter_at(3.0), round_num=3, accepted_round=2)
    assert states.rounds("a") == (1, 2)
    assert entries(states.read("a", 2)) == {2.0}


def test_states_are_private_and_no_name_says_whose_they_are(tmp_path: Path) -> None:
    ClientStates(tmp_path / "states").write("anna", adapter_at(0.0), round_num=1, accepted_round=0)
    paths = [tmp_path / "states", *(tmp_path / "states").rglob("*")]
    assert len(paths) == 3
    for path in paths:
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600)
        assert "anna" not in str(path.relative_to(tmp_path))


def test_a_damaged_state_or_a_place_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    states = ClientStates(tmp_path)
    states.write("a", {"x": torch.ones(9)}, round_num=1, accepted_round=0)
    (path,) = tmp_path.rglob("*.safetensors")
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(RunError, match=r"000001\.safetensors: must hold a client's state"):
        states.read("a", 1)
    with pytest.raises(RunError, match="cannot make"):
        ClientStates(tmp_path / "no" / "where").write("a", {}, round_num=1, accepted_round=0)
