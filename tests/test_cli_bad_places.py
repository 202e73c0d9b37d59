"""Places that cannot be written to, runs that cannot be evaluated, files that are no graph."""

import contextlib
import json
import os
import resource
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from safetensors.torch import load_file, save_file

from helpers.command_line import RUN, TRAIN, Refuse, change_line, cut
from helpers.tiny_base import write_tiny_base
from pkgllm.prompts.group_store import GroupStore

WRITING = {
    "train": ("train", "-c", "small.yaml", "-o"),
    "build": ("data", "build", "-c", "small.yaml", "-o"),
    "evaluate": ("evaluate", str(RUN), "-o"),
}


def forbidden_folder(workplace: Path) -> Path:
    if os.geteuid():
        (workplace / "locked").mkdir(mode=0o500)
        return workplace / "locked" / "run"
    if Path("/sys/kernel").is_dir():
        return Path("/sys/pkgllm-run")
    pytest.skip("root may write everywhere here")


@pytest.mark.parametrize("command", WRITING)
def test_a_place_that_cannot_be_written_to(refuse: Refuse, workplace: Path, command: str) -> None:
    call = WRITING[command]
    earlier = refuse(*call, str(RUN))
    assert "run folder runs/earlier: must be new or empty, holds files" in earlier
    below = refuse(*call, "small.yaml/run")
    assert "cannot make the run folder small.yaml/run: Not a directory" in below
    locked = forbidden_folder(workplace)
    sentence = refuse(*call, str(locked))
    assert f"cannot make the run folder {locked}: " in sentence
    assert "choose a place that you may write to" in sentence


@contextlib.contextmanager
def files_up_to(size: int) -> Iterator[None]:
    """Let the operating system refuse longer files, as a full disk would."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize(
    ("size", "missing", "kept"),
    [
        (500, "config.yaml", []),
        (5_000, "groups.arrow", []),
        (
            40_000,
            "checkpoints/000001.safetensors",
            ["config.yaml", "groups.arrow", "liked_in_training.json"],
        ),
    ],
)
def test_no_room_while_a_run_is_written(
    refuse: Refuse, workplace: Path, size: int, missing: str, kept: list[str]
) -> None:
    with files_up_to(size):
        # An adapter that is larger than the groups.
        sentence = refuse(*TRAIN, "--set", "adapter.lora_rank=16", may_write=True)
    assert sentence.startswith(f"pkgllm: cannot write runs/new/{missing}: File too large; ")
    assert "ulimit -f" in sentence
    assert not (Path("runs/new") / missing).exists()
    left = {path.name for path in Path("runs/new").iterdir()}
    assert set(kept) <= left
    assert not [name for name in left if name.startswith(".")]
    for name in left - {"groups.arrow", "checkpoints", "tensorboard"}:
        text = (Path("runs/new") / name).read_text()
        for part in text.splitlines() if name.endswith(".jsonl") else [text]:
            yaml.safe_load(part) if name.endswith(".yaml") else json.loads(part)
    if "groups.arrow" in left:
        assert len(dict(GroupStore.open(Path("runs/new/groups.arrow")))) == 5


def test_no_room_for_results_and_graphs(refuse: Refuse, workplace: Path) -> None:
    with files_up_to(1500):
        sentence = refuse("evaluate", str(RUN), may_write=True)
    assert "cannot write runs/earlier/evaluations/001/" in sentence
    with files_up_to(1500):
        sentence = refuse("data", "build", "-c", "small.yaml", "-o", "built", may_write=True)
    assert "cannot write built/graphs/1.jsonld: File too large" in sentence
    assert list(Path("built/graphs").iterdir()) == []


def test_what_only_the_operating_system_knows(refuse: Refuse) -> None:
    name = "a" * 300
    assert refuse("evaluate", name) == f"pkgllm: File name too long: {name}"


def forget(name: str) -> Callable[[], object]:
    path = RUN / name
    return lambda: shutil.rmtree(path) if path.is_dir() else path.unlink()


def change_data() -> None:
    change_line(1, lambda record: record["initiatorQuestions"]["6"].update(liked=1))


def other_base(**different: int) -> None:
    write_tiny_base(Path("other"), **different)
    config = yaml.safe_load((RUN / "config.yaml").read_text())
    config["base_model"]["name"] = "other"
    (RUN / "config.yaml").write_text(yaml.safe_dump(config))


def edit_config(before: str, after: str) -> None:
    path = RUN / "config.yaml"
    assert before in path.read_text()
    path.write_text(path.read_text().replace(before, after))


def edit_json(name: str, edit: Callable[[dict[str, Any]], None]) -> None:
    content = json.loads((RUN / name).read_text())
    edit(content)
    (RUN / name).write_text(json.dumps(content))


def negate_adapter() -> None:
    path = RUN / "adapter" / "adapter_model.safetensors"
    save_file({key: -value for key, value in load_file(path).items()}, path)


BAD_RUN: dict[str, tuple[Callable[[], object], int, tuple[str, ...]]] = {
    "no folder": (lambda: shutil.rmtree(RUN), 1, ("run folder runs/earlier: no such folder",)),
    "no adapter": (forget("adapter"), 1, ("not a finished run", "adapter is missing")),
    "no split": (forget("split.json"), 1, ("not a finished run", "split.json is missing")),
    "cut split": (lambda: cut(RUN / "split.json", 9), 1, ("split.json: must be JSON",)),
    "cut likes": (
        lambda: cut(RUN / "liked_in_training.json", 9),
        1,
        ("liked_in_training.json: must be JSON",),
    ),
    "other likes": (
        lambda: (RUN / "liked_in_training.json").write_text("[]"),
        1,
        ("liked_in_training.json: must hold a JSON object",),
    ),
    "broken config": (
        lambda: (RUN / "config.yaml").write_text(
            (RUN / "config.yaml").read_text().replace("seed: 0", "seed: x")
        ),
        2,
        ("runs/earlier/config.yaml: seed: must be",),
    ),
    "cut adapter": (
        lambda: cut(RUN / "adapter" / "adapter_model.safetensors", 9),
        1,
        ("runs/earlier/adapter: the adapter is not the one that the run trained",),
    ),
    "changed data": (change_data, 1, ("the data have changed since the run was trained", "--data")),
    "retrained base": (
        lambda: other_base(seed=1),
        1,
        ("is not the one the run was trained on", "the weights differ"),
    ),
    "larger base": (
        lambda: other_base(hidden_size=64),
        1,
        ("is not the one the run was trained on", "the weights, config.json differ"),
    ),
    "edited config": (
        lambda: edit_config("seed: 0", "seed: 1"),
        2,
        ("config.yaml: was changed since the run began: seed: 0 there, 1 given;",),
    ),
    "edited split": (
        lambda: edit_json("split.json", lambda split: split.update(left_out=["nobody"])),
        1,
        ("split.json: was changed since the run began (left_out)",),
    ),
    "edited likes": (
        lambda: edit_json("liked_in_training.json", lambda likes: likes.update(clients=[])),
        1,
        ("liked_in_training.json: was changed since the run began (clients)",),
    ),
    "other adapter": (
        negate_adapter,
        1,
        ("adapter: the adapter is not the one that the run trained",),
    ),
}


@pytest.mark.parametrize("fault", BAD_RUN)
def test_a_run_that_cannot_be_evaluated(refuse: Refuse, workplace: Path, fault: str) -> None:
    spoil, code, pieces = BAD_RUN[fault]
    spoil()
    sentence = refuse("evaluate", str(RUN), code=code)
    assert all(piece in sentence for piece in pieces), sentence
    assert not (RUN / "evaluations").exists()


@pytest.mark.parametrize("data", ["no-such", "runs"])
def test_other_people_without_dialogues(refuse: Refuse, data: str) -> None:
    sentence = refuse("evaluate", str(RUN), "--data", data)
    assert f"--data {data}: must hold train_data.jsonl or redial/train_data.jsonl" in sentence


@pytest.mark.parametrize(
    ("name", "text", "pieces"),
    [
        ("a.jsonld", None, ("a.jsonld: cannot be read: No such file",)),
        ("a.jsonld", '{\n"@id": "x",\n', ("a.jsonld:3: not JSON", "may be cut off")),
        ("a.jsonld", "[]", ("a.jsonld: a personal graph has one node of type",)),
        ("a.jsonld", '{"@context": "https://schema.org"}', ("a.jsonld: ", "write the context out")),
        ("a.ttl", "<a> <b> .", ("a.ttl:1: not Turtle",)),
        (
            "a.txt",
            "",
            ("a.txt: a graph's file must end in .jsonld, .json, .ttl, .trig or .nq, got '.txt'",),
        ),
    ],
)
def test_a_file_that_is_no_graph(
    refuse: Refuse, workplace: Path, name: str, text: str | None, pieces: tuple[str, ...]
) -> None:
    if text is not None:
        (workplace / name).write_text(text)
    sentence = refuse("pkg", "show", name)
    assert all(piece in sentence for piece in pieces), sentence
