import csv
import fcntl
import json
import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

pytest_plugins = ["helpers.tiny_base", "helpers.command_line"]

# How long an example takes says how busy the machine is.
settings.register_profile("steady", deadline=None)
settings.load_profile("steady")

# A shell's background jobs ignore Ctrl-C, and so would every process that a test starts.
signal.signal(signal.SIGINT, signal.default_int_handler)

# TRL, which tests compare with, reports every trainer otherwise.
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

# suggested, seen, liked as ReDial writes them: 0 no, 1 yes, 2 did not say
_ANSWERS = {
    "liked": (1, 1, 1),
    "disliked": (1, 1, 0),
    "seen": (1, 1, 2),
    "unseen": (1, 0, 2),
    "suggested": (1, 2, 2),
    "nothing": (0, 2, 2),
}


# A minute or more each, the longest first. Those with a Ray wait for each other, so one is later.
_LONGEST = (
    "test_deployment.py",
    "test_resumed_deployment.py",
    "test_ray_runs.py",
    "test_resume.py",
    "test_private_deployment.py",
    "test_cohort.py",
    "test_bench_training.py",
    "test_ray_runtime.py",
    "test_agreement.py",
    "test_side_by_side.py",
    "test_check_reproduced.py",
    "test_bench_population.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest files, lest one process work on them when the others are done."""
    order = {name: place for place, name in enumerate(_LONGEST)}
    items.sort(key=lambda item: order.get(item.path.name, len(order)))


@pytest.fixture
def ray_alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Wait until no other test process has a Ray: two would each take all processors."""
    with (tmp_path_factory.getbasetemp().parent / "ray.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@pytest.fixture(scope="session")
def make_dialogue() -> Callable[..., dict[str, Any]]:
    """Make one dialogue in ReDial's file format from verdicts by film id.

    ``names`` are the mentioned films, by default those with a verdict, called ``Film <id>``; the
    one message mentions them in this order unless ``text`` is given.
    """

    def make(
        conversation: int | str,
        seeker: int | str,
        own: Mapping[str, str],
        *,
        partner: Mapping[str, str] | None = None,
        names: Mapping[str, str | None] | None = None,
        text: str | None = None,
    ) -> dict[str, Any]:
        partner = partner or {}
        if names is None:
            names = {film: f"Film {film}" for film in [*own, *partner]}
        return {
            "conversationId": str(conversation),
            "initiatorWorkerId": seeker,
            "respondentWorkerId": 99,
            "movieMentions": dict(names),
            "initiatorQuestions": _form(own),
            "respondentQuestions": _form(partner),
            "messages": [
                {
                    "timeOffset": 0,
                    "text": " ".join(f"@{film}" for film in names) if text is None else text,
                    "senderWorkerId": 99,
                    "messageId": 1,
                }
            ],
        }

    return make


def _form(verdicts: Mapping[str, str]) -> dict[str, dict[str, int]] | list[object]:
    keys = ("suggested", "seen", "liked")
    form = {
        film: dict(zip(keys, _ANSWERS[verdict], strict=True)) for film, verdict in verdicts.items()
    }
    return form or []


@pytest.fixture(scope="session")
def write_redial() -> Callable[..., Path]:
    """Write ReDial's files below a data root, and return the folder that holds them.

    The films go to ``redial/movies_with_mentions.csv`` and their public facts, if given, to
    ``movie_kg/movies.json``; so ``PKGLLM_DATA`` may be the root.
    """

    def write(
        root: Path,
        dialogues: Sequence[Mapping[str, Any]],
        movies: Mapping[str, str],
        facts: Mapping[str, Mapping[str, Any]] | None = None,
        *,
        test_dialogues: Sequence[Mapping[str, Any]] | None = None,
    ) -> Path:
        folder = root / "redial"
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in (("train", dialogues), ("test", test_dialogues)):
            if content is not None:
                lines = "".join(json.dumps(dialogue) + "\n" for dialogue in content)
                (folder / f"{name}_data.jsonl").write_text(lines, encoding="utf-8")
        with (folder / "movies_with_mentions.csv").open("w", encoding="utf-8", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(("movieId", "movieName", "nbMentions"))
            rows.writerows((film, name, 1) for film, name in movies.items())
        if facts is not None:
            (root / "movie_kg").mkdir(exist_ok=True)
            (root / "movie_kg" / "movies.json").write_text(json.dumps(facts), encoding="utf-8")
        return folder

    return write
