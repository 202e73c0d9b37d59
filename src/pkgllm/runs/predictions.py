"""What the models of a run answered, read back from its folder and checked."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pkgllm.errors import ConfigError, RunError
from pkgllm.runs.folder import RunFolder
from pkgllm.runs.records import ClientRecord, RunOrigin, read_record, read_records


@dataclass(frozen=True, slots=True)
class Asked:
    """What one client's queries were."""

    held_out: tuple[str, ...]
    """Ids of the items, sorted."""
    candidates: int
    """Before the other held-out items are filtered."""


@dataclass(frozen=True, slots=True)
class ModelAnswer:
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
    seed: int
    resamples: int
    """Bootstrap resamples behind each interval of the run's results."""
    settings: str
    """The configuration without seed, place, and how training was observed."""
    privacy: str
    """The run's privacy, in a sentence."""
    digests: Mapping[str, str]
    """SHA-256 by what was read."""
    asked: Mapping[str, Asked]
    """By client, in the order in which they were ranked."""
    seen_in_training: Mapping[str, bool]
    """By client."""
    answers: Mapping[str, Mapping[str, ModelAnswer]]
    """By model, then by client."""

    @classmethod
    def read(
        cls, run: RunFolder, *, name: str, seed: int, resamples: int, settings: str, privacy: str
    ) -> "Predictions":
        """Read the predictions in the folder of a run, or of an evaluation made later.

        Raises:
            RunError: If a file is missing, cannot be read or is damaged.
        """
        digests = read_record(run.provenance, RunOrigin).digests
        asked: dict[str, Asked] = {}
        seen: dict[str, bool] = {}
        answers: dict[str, dict[str, ModelAnswer]] = {}
        for place, record in read_records(run.predictions, ClientRecord):
            if record.client in asked:
                raise RunError(
                    f"{place}: client {record.client!r} must stand once; {record.advice}"
                )
            if asked and list(record.models) != list(answers):
                raise RunError(
                    f"{place}: must hold the models of the first line, {', '.join(answers)}, got "
                    f"{', '.join(record.models)}; {record.advice}"
                )
            items = record.held_out
            order = sorted(range(len(items)), key=lambda index: items[index])
            asked[record.client] = Asked(tuple(items[i] for i in order), record.candidates)
            seen[record.client] = record.seen_in_training
            for model, own in record.models.items():
                ranks = tuple(own.ranks[i] for i in order)
                answer = ModelAnswer(ranks, tuple(own.top), own.failed)
                answers.setdefault(model, {})[record.client] = answer
        if not asked:
            raise RunError(
                f"{run.predictions}: must hold at least one client; {ClientRecord.advice}"
            )
        return cls(
            name, run.path, seed, resamples, settings, privacy, digests, asked, seen, answers
        )

    @property
    def setting(self) -> str:
        """Equal for runs that differ in nothing but seed, place, and how training was watched."""
        # Another seed makes another split, since it draws other unseen clients.
        read = {name: digest for name, digest in self.digests.items() if name != "split"}
        return json.dumps([self.settings, read], sort_keys=True)

    def ranks(self, model: str, clients: Iterable[str]) -> NDArray[np.float64]:
        """Return the realistic ranks of clients' queries, one after the other."""
        answers = self.answers[model]
        return np.array([rank for client in clients for rank in answers[client].ranks])

    def failures(self, model: str) -> int:
        """Return for how many clients a model gave no score."""
        return sum(answer.failed for answer in self.answers[model].values())


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
