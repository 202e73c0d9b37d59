"""What the models of a run answered, read back from its folder and checked."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pkgllm.config.load import load_any_config
from pkgllm.config.schema import AnyExperiment
from pkgllm.errors import ConfigError, RunError
from pkgllm.files import cannot
from pkgllm.pipeline.privacy.statement import privacy_statement
from pkgllm.privacy.statements import read_ranked_guarantee
from pkgllm.runs.folder import RunFolder

_AGAIN = "rank the run again with pkgllm evaluate"


@dataclass(frozen=True, slots=True)
class Asked:
    """What one client's queries were."""

    held_out: tuple[str, ...]
    """Ids of the items, sorted."""
    candidates: int
    """Before the other held-out items are filtered."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What one model made of one client's queries."""

    ranks: tuple[float, ...]
    """Realistic ranks, in the order of the sorted items."""
    top: tuple[str, ...]
    """Ids of the best candidates, best first; empty after a failure."""
    failed: bool


@dataclass(frozen=True, slots=True, eq=False)
class Predictions:
    """Every model's answers to every query of a run."""

    name: str
    path: Path
    config: AnyExperiment
    digests: Mapping[str, str]
    """SHA-256 by what was read."""
    asked: Mapping[str, Asked]
    """By client, in the order in which they were ranked."""
    seen_in_training: Mapping[str, bool]
    """By client."""
    answers: Mapping[str, Mapping[str, Answer]]
    """By model, then by client."""

    @property
    def setting(self) -> str:
        """Equal for runs that differ in nothing but seed, place, and how training was watched."""
        unasked = {"seed", "output", "observation"}
        config = self.config.model_dump(mode="json", exclude=unasked)
        # Another seed makes another split, since it draws other unseen clients.
        read = {name: digest for name, digest in self.digests.items() if name != "split"}
        return json.dumps([config, read], sort_keys=True)

    def ranks(self, model: str, clients: Iterable[str]) -> NDArray[np.float64]:
        """Return the realistic ranks of clients' queries, one after the other."""
        answers = self.answers[model]
        return np.array([rank for client in clients for rank in answers[client].ranks])

    def failures(self, model: str) -> int:
        """Return for how many clients a model gave no score."""
        return sum(answer.failed for answer in self.answers[model].values())


def read_runs(paths: Sequence[Path]) -> list[Predictions]:
    """Read the folders of runs that were asked the same queries.

    Args:
        paths: Folders of runs, or of evaluations made later.

    Raises:
        ConfigError: As :func:`run_names` does, or if a run's configuration does not load.
        RunError: As :func:`read_predictions` and :func:`check_same_queries` do.
    """
    runs = [
        read_predictions(path, name) for path, name in zip(paths, run_names(paths), strict=True)
    ]
    for run in runs[1:]:
        check_same_queries(runs[0], run)
    return runs


def run_names(paths: Sequence[Path]) -> tuple[str, ...]:
    """Return the names of folders, with as many of those above as it takes to tell them apart.

    Raises:
        ConfigError: If no folder is given, or one is given twice.

    Example:
        >>> run_names([Path("runs/a/evaluations/001"), Path("runs/b/evaluations/001"), Path("c")])
        ('a/evaluations/001', 'b/evaluations/001', 'c')
    """
    if not paths:
        raise ConfigError("at least one run must be given, got none")
    places = [path.resolve() for path in paths]
    for index, place in enumerate(places):
        if place in places[:index]:
            raise ConfigError(f"{paths[index]}: each run must be given once, got this one twice")
    return tuple(
        next(
            printable(Path(*place.parts[-length:]))
            for length in range(1, len(place.parts) + 1)
            if [other.parts[-length:] for other in places].count(place.parts[-length:]) == 1
        )
        for place in places
    )


def printable(path: Path) -> str:
    """Return a path that can be printed, though a folder's name may be any bytes."""
    return str(path).encode("utf-8", "backslashreplace").decode()


def read_predictions(path: Path, name: str) -> Predictions:
    """Read the folder of a run, or of an evaluation made later.

    Args:
        path: The folder.
        name: What to call it.

    Raises:
        RunError: If the folder or a file in it is missing, cannot be read or is damaged.
        ConfigError: If its configuration does not load.
    """
    run = RunFolder.open(path, needed=("config.yaml", "provenance.json", "predictions.jsonl"))
    config = load_any_config(str(run.config))
    made = _parse(_text(run.provenance), str(run.provenance))
    match made:
        case {"digests": dict(digests)} if all(isinstance(d, str) for d in digests.values()):
            pass
        case _:
            raise RunError(f"{run.provenance}: must hold digests of what the run read; {_AGAIN}")
    asked: dict[str, Asked] = {}
    seen: dict[str, bool] = {}
    answers: dict[str, dict[str, Answer]] = {}
    # Not splitlines, which would cut at other characters than the one that ends a record.
    lines = _text(run.predictions).removesuffix("\n").split("\n")
    for number, line in enumerate(lines, start=1):
        place = f"{run.predictions}: line {number}"
        row = _row(_parse(line, place), place)
        if row.client in asked:
            raise RunError(f"{place}: client {row.client!r} must stand once; {_AGAIN}")
        if asked and list(row.answers) != list(answers):
            raise RunError(
                f"{place}: must hold the models of the first line, {', '.join(answers)}, got "
                f"{', '.join(row.answers)}; {_AGAIN}"
            )
        asked[row.client] = row.asked
        seen[row.client] = row.seen_in_training
        for model, answer in row.answers.items():
            answers.setdefault(model, {})[row.client] = answer
    return Predictions(name, path, config, digests, asked, seen, answers)


def privacy_notes(runs: Iterable[tuple[str, Predictions]]) -> list[str]:
    """Return what runs promise, for a table in which they stand beside each other.

    Args:
        runs: Each with its name in the table, which several seeds may share; where they promise
            different things, all are told.

    Raises:
        PrivacyError: If what a run promises is damaged.
    """
    names_by_statement: dict[str, list[str]] = {}
    for name, run in runs:
        promised = privacy_statement(run.config, read_ranked_guarantee(RunFolder(run.path).results))
        names_by_statement.setdefault(promised, []).append(name)
    if len(names_by_statement) == 1:
        return list(names_by_statement)
    return [
        f"{', '.join(dict.fromkeys(names))}: {told}" for told, names in names_by_statement.items()
    ]


def check_same_queries(first: Predictions, other: Predictions) -> None:
    """Raise where two runs were not asked the same.

    Raises:
        RunError: If their clients, the held-out items or the numbers of candidates differ.
    """
    difference = next(_differences(first, other), None)
    if difference is not None:
        raise RunError(
            f"{first.path} and {other.path}: must have been asked the same queries to be compared, "
            f"but {difference}; rank both with the same data, split, clients and evaluation.part"
        )


def _differences(first: Predictions, other: Predictions) -> Iterator[str]:
    for one, two in ((first, other), (other, first)):
        missing = [client for client in one.asked if client not in two.asked]
        if missing:
            yield (
                f"{len(missing)} of the {len(one.asked)} clients of {one.path} are not in "
                f"{two.path}, one is {missing[0]!r}"
            )
    for client, asked in first.asked.items():
        also = other.asked[client]
        if asked.held_out != also.held_out:
            yield f"client {client!r} has other held-out items"
        if asked.candidates != also.candidates:
            yield f"client {client!r} has {asked.candidates} and {also.candidates} candidates"


@dataclass(frozen=True, slots=True)
class _Row:
    client: str
    seen_in_training: bool
    asked: Asked
    answers: Mapping[str, Answer]


def _row(record: object, place: str) -> _Row:
    match record:
        case {
            "client": str(client),
            "seen_in_training": bool(seen),
            "held_out": [str(), *_] as held_out,
            "candidates": int(candidates),
            "models": {**models},
        } if models:
            pass
        case _:
            raise RunError(
                f"{place}: must hold client, seen_in_training, held_out, candidates and models; "
                f"{_AGAIN}"
            )
    items = [item for item in held_out if isinstance(item, str)]
    if len(set(items)) != len(held_out) or candidates < len(held_out):
        raise RunError(f"{place}: held-out items must be distinct ids of candidates; {_AGAIN}")
    # The other held-out items are filtered, so none of them can stand before one.
    last = candidates - len(items) + 1
    order = sorted(range(len(items)), key=lambda index: items[index])
    answers: dict[str, Answer] = {}
    for model, answer in models.items():
        match answer:
            case {"ranks": [*ranks], "top": [*top], "failed": bool(failed)} if (
                len(ranks) == len(items)
                and all(_is_rank(rank, last) for rank in ranks)
                and all(isinstance(item, str) for item in top)
            ):
                ordered = tuple(float(ranks[index]) for index in order)
                answers[str(model)] = Answer(ordered, tuple(map(str, top)), failed)
            case _:
                raise RunError(
                    f"{place}: model {model!r} must have failed, true or false, {len(items)} ranks "
                    f"from 1 to {last}, and ids as top; {_AGAIN}"
                )
    asked = Asked(tuple(items[index] for index in order), candidates)
    return _Row(client, seen, asked, answers)


def _is_rank(value: object, last: int) -> bool:
    # True is an int, and no rank.
    return isinstance(value, int | float) and value is not True and 1 <= value <= last


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise RunError(f"{path}: must be text in UTF-8, got other bytes; {_AGAIN}") from error
    except OSError as error:
        raise cannot("read", path, error) from error


def _parse(text: str, place: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise RunError(f"{place}: must be JSON, but {error}; {_AGAIN}") from error
