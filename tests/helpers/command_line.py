"""The command line in this process, in a working folder that holds a small configuration."""

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from pkgllm.cli.app import main
from pkgllm.config.load import load_config

FILMS = {str(film): f"Film {film} ({1950 + film})" for film in range(1, 31)}
CLIENTS = ("1", "2", "3", "4", "5", "6")

# Relative to the working folder.
DIALOGUES = Path("data/redial/train_data.jsonl")
MOVIES = Path("data/redial/movies_with_mentions.csv")
RUN = Path("runs/earlier")
TRAIN = ("train", "-c", "small.yaml", "-o", "runs/new")


@dataclass(frozen=True, slots=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def sentence(self) -> str:
        """The last line of the error stream, which must be all that was said about a failure."""
        lines = self.err.splitlines()
        assert [line for line in lines if line.startswith("pkgllm: ")] == lines[-1:]
        assert "Traceback" not in self.err
        return lines[-1]


RunCommand = Callable[..., Done]
Refuse = Callable[..., str]


def dialogues(make_dialogue: Callable[..., dict[str, Any]]) -> list[dict[str, Any]]:
    """Two for each client: three likes and a dislike, then three likes."""
    made = []
    for client in map(int, CLIENTS):
        first = [str((4 * client + step) % 30 + 1) for step in range(7)]
        verdicts = [
            dict(zip(first[:4], ("liked", "disliked", "liked", "liked"), strict=True)),
            dict.fromkeys(first[4:], "liked"),
        ]
        made += [
            make_dialogue(
                10 * client + half, client, own, names={film: FILMS[film] for film in own}
            )
            for half, own in enumerate(verdicts)
        ]
    return made


def small_config(base: Path) -> dict[str, Any]:
    return {
        "corpus": {"name": "redial", "folder": "data/redial"},
        "base_model": {"name": str(base), "device": "cpu"},
        "adapter": {"lora_rank": 2, "lora_alpha": 4.0},
        "prompt": {"max_tokens": 400},
        "groups": {
            "hidden_facts": 2,
            "stride": 2,
            "max_groups": 2,
            "negatives": {"known": 0, "uniform": 2},
        },
        "objective": {"name": "kto"},
        "training": {"local_steps": 1, "groups_per_step": 1},
        "mode": {"name": "federated", "rounds": 1, "cohort_size": 2},
        "evaluation": {"bootstrap_resamples": 100},
    }


@pytest.fixture(scope="session")
def _finished(
    tmp_path_factory: pytest.TempPathFactory,
    tiny_base_folder: Path,
    make_dialogue: Callable[..., dict[str, Any]],
    write_redial: Callable[..., Path],
) -> Path:
    """A working folder with data, a configuration and one finished run, for copies only."""
    from pkgllm.pipeline import train as jobs
    from pkgllm.progress import Silent

    folder = tmp_path_factory.mktemp("finished")
    write_redial(folder / "data", dialogues(make_dialogue), FILMS)
    (folder / "small.yaml").write_text(yaml.safe_dump(small_config(tiny_base_folder)))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        jobs.train(load_config("small.yaml"), Path("runs/earlier"), Silent())
    return folder


@pytest.fixture
def workplace(_finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: ``small.yaml``, ``data/redial`` and a finished run, ``runs/earlier``."""
    place = tmp_path / "workplace"
    shutil.copytree(_finished, place)
    monkeypatch.chdir(place)
    monkeypatch.delenv("PKGLLM_DATA", raising=False)
    monkeypatch.delenv("PKGLLM_MODELS", raising=False)
    monkeypatch.setenv("COLUMNS", "80")
    return place


@pytest.fixture
def pkgllm(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> RunCommand:
    """Call the command in this process, which starts in no time."""

    def call(*arguments: str) -> Done:
        monkeypatch.setattr(sys, "argv", ["pkgllm", *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        code = ended.value.code or 0
        assert isinstance(code, int)
        return Done(code, *capsys.readouterr())

    return call


def snapshot(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture
def refuse(pkgllm: RunCommand, workplace: Path) -> Refuse:
    """Run a command that must fail; return its one sentence.

    Nothing but the empty run folder may come of it, unless ``may_write``; then at least every file
    that was there before is unharmed.
    """

    def call(*arguments: str, code: int = 1, may_write: bool = False) -> str:
        before = snapshot(workplace)
        done = pkgllm(*arguments)
        after = snapshot(workplace)
        assert done.code == code, done.err
        assert done.out == ""
        assert {name: after[name] for name in before} == before
        if not may_write:
            assert after == before
        return done.sentence

    return call


def change_line(number: int, change: Callable[[dict[str, Any]], object]) -> None:
    lines = DIALOGUES.read_text().splitlines()
    record = json.loads(lines[number - 1])
    change(record)
    lines[number - 1] = json.dumps(record)
    DIALOGUES.write_text("".join(f"{line}\n" for line in lines))


def cut(path: Path, characters: int) -> None:
    path.write_bytes(path.read_bytes()[:-characters])
