"""People that an embedding did not train with, or hardly any, from the command line."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from helpers.command_line import DIALOGUES, FILMS, Refuse, RunCommand
from test_cli_embeddings import EMBEDDING

Write = Callable[..., Path]
Make = Callable[..., dict[str, Any]]

TRAIN = ("train", "-c", "hake.yaml", "-o", "runs/hake")
FEDERATED = ("--set", "mode={name: federated, exchange: fedavg, cohort_size: 1}")


@pytest.fixture(autouse=True)
def _configuration(workplace: Path) -> None:
    moving = {**EMBEDDING, "fold_in": {"steps": 30, "learning_rate": 0.5}}
    (workplace / "hake.yaml").write_text(yaml.safe_dump(moving, sort_keys=False))


@pytest.fixture
def person(make_dialogue: Make, write_redial: Write) -> Callable[[str, str], str]:
    """Write a folder with one person, who says one word more than likes about one film."""

    def write(folder: str, verdict: str) -> str:
        first = {"1": "liked", "2": verdict, "3": "liked", "4": "liked"}
        then = dict.fromkeys(("15", "16", "17"), "liked")
        said = [make_dialogue(n, "p", own, names=FILMS) for n, own in enumerate((first, then), 1)]
        return str(write_redial(Path(folder), said, FILMS))

    return write


def keep_clients(*kept: int) -> None:
    """Leave out the said of all other training clients."""
    lines = DIALOGUES.read_text().splitlines()
    kept_lines = [line for line in lines if json.loads(line)["initiatorWorkerId"] in kept]
    DIALOGUES.write_text("".join(f"{line}\n" for line in kept_lines))


def dislike_nothing() -> None:
    records = [json.loads(line) for line in DIALOGUES.read_text().splitlines()]
    for record in records:
        for answer in record["initiatorQuestions"].values():
            answer["liked"] = 1
    DIALOGUES.write_text("".join(f"{json.dumps(record)}\n" for record in records))


def tuned_ranks(folder: Path) -> dict[str, Any]:
    rows = [json.loads(line) for line in (folder / "predictions.jsonl").open()]
    return {row["client"]: row["models"]["tuned"] for row in rows}


@pytest.mark.slow
@pytest.mark.parametrize("known", [True, False])
def test_facts_of_a_relation_that_nobody_trained_with_are_left_out(
    pkgllm: RunCommand, workplace: Path, person: Callable[[str, str], str], known: bool
) -> None:
    if not known:
        dislike_nothing()
    assert pkgllm(*TRAIN).code == 0
    ranks = []
    for verdict in ("disliked", "seen"):
        others = person(f"saying {verdict}", verdict)
        done = pkgllm("evaluate", "runs/hake", "--data", others, "-o", verdict)
        assert done.code == 0, done.err
        ranks.append(tuned_ranks(workplace / verdict))
    # Neither of them is known to the one model, so that they are one person to it.
    assert (ranks[0] == ranks[1]) == (not known)


def test_who_is_known_by_nothing_is_the_mean_person_and_counted(
    pkgllm: RunCommand, workplace: Path, make_dialogue: Make, write_redial: Write
) -> None:
    assert pkgllm(*TRAIN).code == 0
    said = [
        make_dialogue(n, name, {"7": "liked"}, names=FILMS) for n, name in enumerate("xyz", start=1)
    ]
    others = write_redial(workplace / "others", said, FILMS)
    done = pkgllm("evaluate", "runs/hake", "--data", str(others), "-o", "out")
    assert done.code == 0, done.err
    ranks = tuned_ranks(workplace / "out")
    assert set(ranks) == {"x", "y", "z"}
    assert ranks["x"] == ranks["y"] == ranks["z"]
    told_of = " ".join((workplace / "out" / "results.md").read_text().split())
    assert "3 of 3 have no visible fact that the embedding knows" in told_of


def test_an_item_that_was_not_trained_with_is_refused(
    pkgllm: RunCommand,
    refuse: Refuse,
    workplace: Path,
    make_dialogue: Make,
    write_redial: Write,
) -> None:
    assert pkgllm(*TRAIN).code == 0
    films = {**FILMS, "99": "Unheard Of (2001)"}
    liked = dict.fromkeys(("1", "2", "99"), "liked")
    others = write_redial(workplace / "others", [make_dialogue(1, "x", liked, names=films)], films)
    sentence = refuse("evaluate", "runs/hake", "--data", str(others))
    assert "tuned: every item to rank must have a vector, and 1 of 31 have none" in sentence
    assert "one is '99'; an embedding can only rank the catalogue" in sentence


def test_one_client_trains_in_one_place(pkgllm: RunCommand, workplace: Path) -> None:
    keep_clients(3)
    done = pkgllm(*TRAIN)
    assert done.code == 0, done.err
    assert list(tuned_ranks(workplace / "runs/hake")) == ["3"]


def test_one_client_trains_over_clients_where_it_has_public_facts_to_share(
    pkgllm: RunCommand, refuse: Refuse, workplace: Path
) -> None:
    keep_clients(3)
    assert "need public facts of the items, which every client holds, got none for 30" in refuse(
        *TRAIN, *FEDERATED, may_write=True
    )
    (workplace / "data/movie_kg").mkdir()
    genres = {film: {"genre": [f"genre {int(film) % 3}"]} for film in FILMS}
    (workplace / "data/movie_kg/movies.json").write_text(json.dumps(genres))
    assert "cohort_size must be at most the number of training clients, 1, got 2" in refuse(
        *TRAIN, *FEDERATED, "--set", "mode.cohort_size=2", may_write=True
    )
    done = pkgllm(*TRAIN, *FEDERATED)
    assert done.code == 0, done.err
    assert "1 clients in cohorts of 1; 100% took part" in " ".join(done.out.split())
