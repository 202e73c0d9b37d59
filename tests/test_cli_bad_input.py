"""Every bad input ends in one sentence and the right exit code, and harms no file."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from helpers.command_line import (
    DIALOGUES,
    FILMS,
    MOVIES,
    RUN,
    TRAIN,
    Refuse,
    RunCommand,
    change_line,
    cut,
    snapshot,
)


def break_line(number: int) -> None:
    lines = DIALOGUES.read_text().splitlines(keepends=True)
    lines[number - 1] = lines[number - 1].replace('"messages":', '"messages"', 1)
    DIALOGUES.write_text("".join(lines))


def ask_about_a_nameless_film() -> None:
    def change(record: dict[str, Any]) -> None:
        record["initiatorQuestions"]["777"] = {"suggested": 1, "seen": 1, "liked": 1}
        record["movieMentions"]["777"] = None

    change_line(3, change)


def like_nothing() -> None:
    for number in (3, 4):
        change_line(
            number,
            lambda record: [a.update(liked=0) for a in record["initiatorQuestions"].values()],
        )


def name_no_film() -> None:
    MOVIES.write_text("movieId,movieName,nbMentions\n")
    number = len(DIALOGUES.read_text().splitlines())
    for line in range(1, number + 1):
        change_line(
            line,
            lambda record: record.update(
                movieMentions=dict.fromkeys(record["movieMentions"]), initiatorQuestions={}
            ),
        )


BAD_DATA: dict[str, tuple[Callable[[], object], tuple[str, ...]]] = {
    "no folder": (
        lambda: shutil.rmtree("data"),
        ("no folder with ReDial's files", "data/redial", "corpus.folder"),
    ),
    "no dialogues": (DIALOGUES.unlink, (f"{DIALOGUES}: no such file",)),
    "no films": (MOVIES.unlink, (f"{MOVIES}: no such file",)),
    "empty dialogues": (lambda: DIALOGUES.write_text(""), (f"{DIALOGUES}: must hold",)),
    "cut dialogues": (
        lambda: cut(DIALOGUES, 40),
        (f"{DIALOGUES}:12: ", "not JSON", "may be cut off"),
    ),
    "cut films": (
        lambda: MOVIES.write_text(MOVIES.read_text().rstrip()[:-2]),
        (f"{MOVIES}:31: ", "may be cut off: fetch it again"),
    ),
    "broken line": (lambda: break_line(2), (f"{DIALOGUES}:2: ", "not JSON")),
    "other JSON": (
        lambda: change_line(2, lambda record: record.pop("initiatorWorkerId")),
        (f"{DIALOGUES}:2: ", "initiatorWorkerId", "no such key"),
    ),
    "not text": (lambda: MOVIES.write_bytes(b"\xff\xfe\xff"), (f"{MOVIES}: not UTF-8 text",)),
    "nameless film": (
        ask_about_a_nameless_film,
        (f"{DIALOGUES}:3: ", "film 777 of conversation 20 must have a name"),
    ),
    "nothing liked": (
        like_nothing,
        ("client 2 has 0 liked facts", "clients.below_min_liked: leave_out"),
    ),
    "empty catalogue": (name_no_film, ("the catalogue is empty",)),
}


@pytest.mark.parametrize("fault", BAD_DATA)
@pytest.mark.parametrize(
    "command",
    [TRAIN, ("data", "build", "-c", "small.yaml", "-o", "built"), ("evaluate", str(RUN))],
    ids=["train", "build", "evaluate"],
)
def test_bad_data(workplace: Path, refuse: Refuse, fault: str, command: tuple[str, ...]) -> None:
    spoil, pieces = BAD_DATA[fault]
    spoil()
    sentence = refuse(*command)
    assert all(piece in sentence for piece in pieces), sentence
    assert not (RUN / "evaluations").exists()


@pytest.mark.slow
def test_the_same_command_works_once_the_data_are_repaired(
    pkgllm: RunCommand, refuse: Refuse
) -> None:
    whole = DIALOGUES.read_bytes()
    cut(DIALOGUES, 40)
    refuse(*TRAIN)
    DIALOGUES.write_bytes(whole)
    assert pkgllm(*TRAIN).code == 0


@pytest.mark.slow
def test_a_client_without_likes_may_be_left_out(pkgllm: RunCommand, workplace: Path) -> None:
    like_nothing()
    done = pkgllm(*TRAIN, "--set", "clients.below_min_liked=leave_out")
    assert done.code == 0, done.err
    assert "Left out: 1 clients with fewer than 1 liked facts" in " ".join(done.out.split())


def test_a_film_that_the_prompt_gives_away_is_a_leak(refuse: Refuse, workplace: Path) -> None:
    # Every prompt in prose holds these words; film 11 is the last that client 1 liked.
    for path in (MOVIES, DIALOGUES):
        path.write_text(path.read_text().replace(FILMS["11"], "The User Liked (1961)"))
    sentence = refuse(*TRAIN)
    assert "leak audit: the test prompt of client '1'" in sentence
    assert "'The User Liked (1961)'" in sentence


def damaged_base(workplace: Path, base: Path, damage: Callable[[Path], object]) -> str:
    folder = workplace / "damaged"
    shutil.copytree(base, folder)
    damage(folder)
    return f"base_model.name={folder}"


def without_template(folder: Path) -> None:
    (folder / "chat_template.jinja").unlink(missing_ok=True)


@pytest.mark.parametrize(
    ("damage", "pieces"),
    [
        (lambda f: (f / "config.json").unlink(), ("not a base model", "config.json is missing")),
        (lambda f: cut(f / "model.safetensors", 99), ("cannot load", "as a base model")),
        (lambda f: (f / "model.safetensors").unlink(), ("must hold weights in safetensors",)),
        (lambda f: (f / "config.json").write_text("{"), ("cannot load", "as a base model")),
        (without_template, ("chat template", "instruction-tuned")),
    ],
    ids=["no config", "cut", "no parameters", "broken config", "no template"],
)
def test_a_folder_that_is_no_base_model(
    refuse: Refuse,
    workplace: Path,
    tiny_base_folder: Path,
    damage: Callable[[Path], object],
    pieces: tuple[str, ...],
) -> None:
    change = damaged_base(workplace, tiny_base_folder, damage)
    sentence = refuse(*TRAIN, "--set", change)
    assert all(piece in sentence for piece in ("base_model.name", "damaged", *pieces)), sentence


@pytest.mark.parametrize(
    ("change", "code", "pieces"),
    [
        ("split.test_share=0", 2, ("split.test_share must be above 0", "got 0")),
        ("base_model.name=no-such", 1, ("no base model 'no-such'", "PKGLLM_MODELS")),
        (
            "base_model.device=cuda:99",
            1,
            ("base_model.device: this machine has", "got cuda:99", "auto or cpu"),
        ),
        ("base_model.device=gpu", 1, ("base_model.device must be auto, cpu", "got 'gpu'")),
        ("adapter.target_modules=[nose]", 1, ("adapter.target_modules", "nose")),
        # 2^50 rows of 32 numbers are more than any address space.
        (f"adapter.lora_rank={2**50}", 1, ("out of memory", "adapter.lora_rank")),
        ("mode.cohort_size=6", 2, ("mode.cohort_size must be at most", "5, got 6", "lower it")),
        ("prompt.max_tokens=16", 2, ("--set prompt.max_tokens: must be", "got 16")),
        ("prompt.max_tokens=40", 1, ("prompt.max_tokens must hold at least", "got 40")),
        ("prompt.max_tokens=1024", 2, ("prompt.max_tokens must be at most", "1024 positions")),
        ("groups.min_context=50", 1, ("no client has a training group", "groups.min_context")),
        ("mode.cohort_sise=2", 2, ("mode.cohort_sise: unknown key", "did you mean cohort_size?")),
        ("seed=-1", 2, ("--set seed: must be a whole number of at least 0, got -1",)),
        ("seed", 2, ("--set seed: must be KEY=VALUE",)),
        ("seed=[1", 2, ("--set seed",)),
        ("objective.name=ktoo", 2, ("objective.name", "did you mean kto?")),
    ],
)
def test_a_configuration_that_cannot_be(
    refuse: Refuse, change: str, code: int, pieces: tuple[str, ...]
) -> None:
    sentence = refuse(*TRAIN, "--set", change, code=code)
    assert all(piece in sentence for piece in pieces), sentence


@pytest.mark.slow
def test_training_that_runs_away_keeps_the_rounds_before(refuse: Refuse, workplace: Path) -> None:
    changes = ["training.learning_rate=1e30", "mode.rounds=9", "training.schedule=constant"]
    sentence = refuse(*TRAIN, *(f"--set={change}" for change in changes), may_write=True)
    assert "must send a usable update, 0 did" in sentence
    assert "once that is mended, go on with: pkgllm train --resume runs/new" in sentence
    lines = (workplace / "runs/new/metrics.jsonl").read_text().splitlines()
    assert len(lines) >= 1
    assert [json.loads(line)["round_num"] for line in lines] == list(range(1, len(lines) + 1))


@pytest.mark.parametrize(
    ("arguments", "pieces"),
    [
        ((), None),
        (("config",), None),
        (("trane",), ("No such command 'trane'", "Did you mean 'train'?", "pkgllm --help")),
        (("config", "sow"), ("No such command 'sow'", "pkgllm config --help")),
        (("train",), ("Missing option '--config'", "pkgllm train --help")),
        (("train", "--confg", "small.yaml"), ("No such option", "--config")),
        (("train", "-c"), ("requires an argument",)),
        (("train", "-c", "small.yaml", "more"), ("unexpected extra argument", "more")),
        (("evaluate",), ("Missing argument 'RUN'", "pkgllm evaluate --help")),
        (("data", "build", "-c", "small.yaml"), ("Missing option '--output'",)),
        (("train", "-c", "quikstart.yaml"), ("no configuration", "did you mean quickstart.yaml?")),
        (("config", "check", "data"), ("no configuration data",)),
    ],
)
def test_a_wrong_call(
    pkgllm: RunCommand, workplace: Path, arguments: tuple[str, ...], pieces: tuple[str, ...] | None
) -> None:
    before = snapshot(workplace)
    done = pkgllm(*arguments)
    assert done.code == 2
    assert done.out == ""
    if pieces is None:
        assert done.err.startswith("Usage: pkgllm")
        assert "Commands:" in done.err
    else:
        assert all(piece in done.sentence for piece in pieces), done.err
        assert len(done.err.splitlines()) == 1
    assert snapshot(workplace) == before


def test_everything_wrong_with_a_configuration_is_told_at_once(
    pkgllm: RunCommand, workplace: Path
) -> None:
    tree = yaml.safe_load((workplace / "small.yaml").read_text())
    tree["sed"] = 1
    tree["training"]["local_steps"] = 0
    (workplace / "wrong.yaml").write_text(yaml.safe_dump(tree))
    for command in (("config", "check", "wrong.yaml"), ("train", "-c", "wrong.yaml")):
        done = pkgllm(*command)
        assert done.code == 2
        first, second = sorted(done.err.removeprefix("pkgllm: ").splitlines())
        assert first.startswith("wrong.yaml: sed: unknown key, got 1 (did you mean seed?)")
        assert second.startswith("wrong.yaml: training.local_steps: must be")


@pytest.mark.parametrize(
    ("content", "piece"),
    [
        (b"seed: [1\n", "wrong.yaml: line 2, column 1: this is not YAML"),
        (b"", "wrong.yaml: must hold keys and values, it is empty"),
        (b"- 1\n", "wrong.yaml: must hold keys and values, got [1]"),
        (b"\xff\xfe\xff", "wrong.yaml: must be text in UTF-8"),
    ],
)
def test_a_file_that_is_no_configuration(
    refuse: Refuse, workplace: Path, content: bytes, piece: str
) -> None:
    (workplace / "wrong.yaml").write_bytes(content)
    assert piece in refuse("config", "check", "wrong.yaml", code=2)


def test_a_key_that_stands_twice(refuse: Refuse, workplace: Path) -> None:
    text = (workplace / "small.yaml").read_text()
    (workplace / "wrong.yaml").write_text(f"{text}seed: 1\nseed: 2\n")
    sentence = refuse("config", "check", "wrong.yaml", code=2)
    assert "wrong.yaml: seed: " in sentence
    assert "keep one" in sentence
