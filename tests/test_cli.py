import csv
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import typer
import yaml

from helpers.command_line import CLIENTS, FILMS, RunCommand, snapshot
from pkgllm import __version__
from pkgllm.cli.app import app
from pkgllm.config.load import load_config
from pkgllm.graph.rdf import read_graph


def leaves(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    if isinstance(command, click.Group):
        for name, below in command.commands.items():
            yield from leaves(below, (*path, name))
    else:
        yield path


COMMANDS = sorted(leaves(typer.main.get_command(app)))


def test_the_commands() -> None:
    assert [" ".join(path) for path in COMMANDS] == [
        "chat",
        "compare",
        "config check",
        "config show",
        "data build",
        "evaluate",
        "federation client",
        "federation keys",
        "federation server",
        "pkg dislike",
        "pkg export",
        "pkg forget",
        "pkg history",
        "pkg like",
        "pkg new",
        "pkg rules add",
        "pkg rules list",
        "pkg rules remove",
        "pkg seen",
        "pkg show",
        "pkg undo",
        "pkg validate",
        "privacy audit",
        "privacy canaries",
        "privacy plan",
        "recommend",
        "report",
        "reproduce pie",
        "reproduce table2",
        "sweep",
        "train",
    ]


@pytest.mark.parametrize("path", COMMANDS)
def test_help_ends_with_an_example_that_the_command_understands(
    pkgllm: RunCommand, path: tuple[str, ...]
) -> None:
    done = pkgllm(*path, "--help")
    assert (done.code, done.err) == (0, "")
    assert "\\" not in done.out
    *_, heading, example = done.out.rstrip().splitlines()
    assert heading.strip() == "Example:"
    program, *arguments = shlex.split(example.split(">")[0])
    assert program == "pkgllm"
    assert arguments[: len(path)] == list(path)
    command = typer.main.get_command(app)
    for name in path:
        assert isinstance(command, click.Group)
        command = command.commands[name]
    # Raises a usage error where the example does not parse.
    command.make_context("pkgllm", arguments[len(path) :])


def test_help_and_version(pkgllm: RunCommand) -> None:
    assert pkgllm("--version").out == f"pkgllm {__version__}\n"
    done = pkgllm("--help")
    assert done.code == 0
    assert done.out.startswith("Usage: pkgllm ")
    assert {path[0] for path in COMMANDS} <= set(done.out.split())
    assert "..." not in done.out.split("Commands:")[1]


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.mark.slow
def test_train_leaves_a_whole_run_and_prints_its_numbers(
    pkgllm: RunCommand, workplace: Path
) -> None:
    done = pkgllm("train", "-c", "small.yaml", "--set", "mode.rounds=2", "-o", "runs/mine")
    assert done.code == 0, done.err
    run = workplace / "runs" / "mine"
    results = read_json(run / "results.json")
    assert list(results["models"]) == ["tuned", "base", "popularity", "item_knn", "ease"]
    assert results["clients"] == len(CLIENTS)
    predictions = [json.loads(line) for line in (run / "predictions.jsonl").open()]
    assert sorted(row["client"] for row in predictions) == sorted(CLIENTS)
    metrics = [json.loads(line) for line in (run / "metrics.jsonl").open()]
    assert [record["round_num"] for record in metrics] == [1, 2]
    expected = load_config("small.yaml", ["mode.rounds=2"])
    assert load_config(str(run / "config.yaml")) == expected
    assert {path.name for path in (run / "adapter").iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
    }
    for metric in ("hits@1", "hits@3", "hits@10", "mrr"):
        estimate = results["models"]["tuned"][metric]
        assert f"{estimate['value']:.4f}"[-5:] in done.out
        assert f"{estimate['value']:.4f}"[-5:] in (run / "results.md").read_text()
    assert "kto, federated" in done.out
    assert f"All clients: 6 clients, {results['queries']} queries" in done.out
    assert "as JSON:    runs/mine/results.json" in done.out
    assert max(map(len, done.out.splitlines())) <= 80
    lines = done.err.splitlines()
    assert lines[0] == "run folder: runs/mine"
    for work in ("building groups: 5/5", "rounds: 2/2", "ranking: 6/6"):
        assert [line for line in lines if line.startswith(work)]


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["centralized", "local"])
def test_the_other_modes(pkgllm: RunCommand, workplace: Path, mode: str) -> None:
    done = pkgllm(
        "train", "-c", "small.yaml", "--set", f"mode={{name: {mode}, rounds: 1}}", "-o", mode
    )
    assert done.code == 0, done.err
    again = pkgllm("evaluate", mode)
    assert again.code == 0, again.err
    results = read_json(workplace / mode / "evaluations" / "001" / "results.json")
    assert results == read_json(workplace / mode / "results.json")
    own = workplace / mode / "adapters"
    assert (len(list(own.iterdir())) == 5) if mode == "local" else not own.exists()


@pytest.mark.slow
def test_a_run_folder_is_named_when_nobody_names_it(pkgllm: RunCommand, workplace: Path) -> None:
    assert pkgllm("train", "-c", "small.yaml", "--set", "output=others").code == 0
    (folder,) = (workplace / "others").iterdir()
    assert folder.name.startswith("small-")
    assert (folder / "results.json").is_file()


@pytest.mark.slow
def test_evaluate_ranks_the_same_again_and_leaves_the_run_as_it_was(
    pkgllm: RunCommand, workplace: Path
) -> None:
    run = workplace / "runs" / "earlier"
    before = snapshot(run)
    for number in ("001", "002"):
        done = pkgllm("evaluate", "runs/earlier")
        assert done.code == 0, done.err
        folder = run / "evaluations" / number
        assert read_json(folder / "results.json") == read_json(run / "results.json")
        assert (folder / "predictions.jsonl").read_bytes() == before["predictions.jsonl"]
        assert f"evaluations/{number}/results.json" in done.out
    after = snapshot(run)
    assert {name: after[name] for name in before} == before


def test_evaluate_ranks_other_people_who_are_all_unseen(
    pkgllm: RunCommand, workplace: Path
) -> None:
    lines = (workplace / "data/redial/train_data.jsonl").read_text().splitlines()
    renamed = [json.loads(line) for line in lines[:4]]
    for record in renamed:
        record["initiatorWorkerId"] = f"other {record['initiatorWorkerId']}"
    others = workplace / "others"
    others.mkdir()
    (others / "train_data.jsonl").write_text("".join(json.dumps(r) + "\n" for r in renamed))
    films = list(FILMS.items())[:20]
    with (others / "movies_with_mentions.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("movieId", "movieName"), *films])
    done = pkgllm("evaluate", "runs/earlier", "--data", "others", "-o", "ranked")
    assert done.code == 0, done.err
    results = read_json(workplace / "ranked" / "results.json")
    assert (results["clients"], results["seen"]["clients"]) == (2, 0)
    rows = [json.loads(line) for line in (workplace / "ranked" / "predictions.jsonl").open()]
    assert [row["client"] for row in rows] == ["other 1", "other 2"]
    # One of six likes is held out; the six facts before it are no candidates among the 20 films.
    assert [(len(row["held_out"]), row["candidates"]) for row in rows] == [(1, 14), (1, 14)]
    assert "Data: others, 2 clients, 2 of them unseen" in " ".join(done.out.split())


def test_config_check_and_show(pkgllm: RunCommand, workplace: Path) -> None:
    done = pkgllm("config", "check", "small.yaml", "--set", "seed=3")
    assert (done.code, done.out) == (0, "small.yaml: good\n")
    done = pkgllm("config", "show", "small.yaml", "--set", "seed=3")
    (workplace / "shown.yaml").write_text(done.out)
    assert load_config("shown.yaml") == load_config("small.yaml", ["seed=3"])
    assert yaml.safe_load(done.out)["training"]["optimizer"] == "adamw"


def test_names_are_looked_up_as_paths_then_in_configs_then_among_the_presets(
    pkgllm: RunCommand, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    def seed() -> int:
        done = pkgllm("config", "show", "quickstart.yaml")
        assert done.code == 0, done.err
        return int(yaml.safe_load(done.out)["seed"])

    preset = yaml.safe_load(pkgllm("config", "show", "quickstart.yaml").out)
    assert seed() == 0
    Path("configs").mkdir()
    Path("configs/quickstart.yaml").write_text(yaml.safe_dump({**preset, "seed": 5}))
    assert seed() == 5
    Path("quickstart.yaml").write_text(yaml.safe_dump({**preset, "seed": 6}))
    assert seed() == 6


def test_data_build_writes_graphs_that_pkg_show_prints(pkgllm: RunCommand, workplace: Path) -> None:
    done = pkgllm("data", "build", "-c", "small.yaml", "-o", "built")
    assert (done.code, done.out) == (0, "6 graphs and the split are in built\n")
    assert sorted(path.stem for path in (workplace / "built/graphs").iterdir()) == sorted(CLIENTS)
    split = read_json(workplace / "built" / "split.json")
    assert split == read_json(workplace / "runs" / "earlier" / "split.json")
    for client in CLIENTS:
        path = f"built/graphs/{client}.jsonld"
        graph = read_graph(Path(path))
        done = pkgllm("pkg", "show", path)
        assert done.code == 0
        assert f"{client}: 6 liked, 1 disliked" in done.out
        assert all(fact.name in done.out for fact in graph.facts)
        held_out = split["clients"][client]["test"]
        assert [fact.tail for fact in graph.with_relation("liked")][-len(held_out) :] == held_out


def start(*arguments: str, **options: Any) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-m", "pkgllm", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        **options,
    )


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["pkg", "show", "no.ttl"], 1, "no.ttl: cannot be read: No such file or directory"),
        (["trane"], 2, "No such command 'trane'. Did you mean 'train'? See pkgllm --help."),
    ],
)
def test_a_failure_in_a_process_of_its_own(
    tmp_path: Path, arguments: list[str], code: int, sentence: str
) -> None:
    with start(*arguments, cwd=tmp_path) as process:
        assert process.communicate(timeout=60) == (b"", f"pkgllm: {sentence}\n".encode())
    assert process.returncode == code


@pytest.mark.slow
def test_as_a_module_and_into_a_closed_pipe() -> None:
    with start("--version") as process:
        assert process.communicate(timeout=60) == (f"pkgllm {__version__}\n".encode(), b"")
    with start("config", "show", "fedkto.yaml") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.wait(timeout=60) == 1
        assert process.stderr.read() == b""


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_in_one_line_after_a_checkpoint(
    pkgllm: RunCommand, workplace: Path, number: signal.Signals
) -> None:
    run = workplace / "runs" / "mine"
    before = snapshot(workplace)
    changes = ["--set", "mode.rounds=100000", "--output", str(run)]
    with start("train", "-c", "small.yaml", *changes) as process:
        try:
            deadline = time.monotonic() + 180
            while not (run / "metrics.jsonl").exists():
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.02)
            process.send_signal(number)
            _, err = process.communicate(timeout=180)
        finally:
            process.kill()
    lines = err.decode().splitlines()
    assert process.returncode == 1
    assert lines[-1] == (
        f"pkgllm: stopped after a checkpoint; go on with: pkgllm train --resume {run}"
    )
    assert "warning: stopping after this round; once more stops at once" in lines
    assert "Traceback" not in err.decode()
    after = snapshot(workplace)
    assert {name: after[name] for name in before} == before
    assert load_config(str(run / "config.yaml"))
    for name in ("provenance.json", "split.json", "liked_in_training.json"):
        read_json(run / name)
    rounds = [json.loads(line)["round_num"] for line in (run / "metrics.jsonl").open()]
    assert rounds == list(range(1, len(rounds) + 1))
    assert not (run / "results.json").exists()
    done = pkgllm("evaluate", "runs/mine")
    assert done.code == 1
    assert "runs/mine: not a finished run, because adapter is missing" in done.sentence


def test_a_bug_shows_its_traceback(
    pkgllm: RunCommand, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: Path) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr("pkgllm.graph.rdf.read_record", fail)
    with pytest.raises(RuntimeError, match="a bug"):
        pkgllm("pkg", "show", "any.jsonld")
