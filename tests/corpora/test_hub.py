import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pkgllm.corpora.hub import read_hub, read_records, to_file_format
from pkgllm.corpora.redial_files import read_dialogue, read_redial
from pkgllm.errors import DataError

Make = Callable[..., dict[str, Any]]


def to_hub_shape(dialogue: dict[str, Any]) -> dict[str, Any]:
    """Write a dialogue as the hub does: lists of records instead of objects by film."""
    record = dict(dialogue)
    record["movieMentions"] = [
        {"movieId": film, "movieName": name} for film, name in dialogue["movieMentions"].items()
    ]
    for key in ("initiatorQuestions", "respondentQuestions"):
        rows = dict(dialogue[key] or {})
        record[key] = [{"movieId": film, **answer} for film, answer in rows.items()]
    return record


def test_a_record_of_the_hub_reads_as_the_line_of_the_file(make_dialogue: Make) -> None:
    for dialogue in (
        make_dialogue(1, 7, {"1": "liked", "2": "seen"}, partner={"3": "disliked"}),
        make_dialogue(2, 8, {}, names={"50": None}),
    ):
        converted = to_file_format(to_hub_shape(dialogue), where="row")
        assert read_dialogue(converted, where="x") == read_dialogue(dialogue, where="x")


@pytest.mark.parametrize("rows", [None, {"movieId": ["1"]}, ["1"], [{"movieName": "A"}]])
def test_another_shape_is_refused_with_row_and_key(make_dialogue: Make, rows: object) -> None:
    record = to_hub_shape(make_dialogue(1, 7, {"1": "liked"}))
    record["movieMentions"] = rows
    with pytest.raises(DataError, match=r"hub/train:0: movieMentions must be a list of records"):
        read_records([record], where="hub/train")


def test_an_answer_of_the_wrong_kind_is_refused_with_row_and_film(make_dialogue: Make) -> None:
    good = to_hub_shape(make_dialogue(1, 7, {"1": "liked"}))
    bad = to_hub_shape(make_dialogue(2, 7, {"1": "liked"}))
    bad["initiatorQuestions"][0]["liked"] = 5
    with pytest.raises(DataError, match=r"hub/train:1: film 1: liked must be 0, 1 or 2, got 5"):
        read_records([good, bad], where="hub/train")


def test_the_digest_is_that_of_the_rows(make_dialogue: Make) -> None:
    rows = [to_hub_shape(make_dialogue(number, 7, {"1": "liked"})) for number in (1, 2)]
    _, digest = read_records(rows, where="x")
    assert digest == read_records([dict(reversed(row.items())) for row in rows], where="y")[1]
    assert digest != read_records(rows[::-1], where="x")[1]


@pytest.mark.slow
def test_a_data_set_on_disk_gives_the_graphs_of_the_files(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    make_dialogue: Make,
    write_redial: Callable[..., Path],
) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    train = [
        make_dialogue(1, 7, {"1": "liked", "2": "seen"}),
        make_dialogue(2, 8, {}, partner={"3": "disliked"}),
    ]
    test = [make_dialogue(3, 7, {"2": "liked"})]
    hub = tmp_path / "hub"
    hub.mkdir()
    for split, dialogues in (("train", train), ("test", test)):
        lines = "".join(json.dumps(to_hub_shape(dialogue)) + "\n" for dialogue in dialogues)
        (hub / f"{split}.jsonl").write_text(lines, encoding="utf-8")
    corpus = read_hub(str(hub))
    movies = {film: f"Film {film}" for film in ("1", "2", "3")}
    files = read_redial(
        write_redial(tmp_path, train, movies, test_dialogues=test), movie_facts=None
    )
    assert corpus.graphs == files.graphs
    assert corpus.catalogue.items == files.catalogue.items
    assert set(corpus.digests) == {"train", "test"}


@pytest.mark.slow
def test_a_data_set_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"hub data set .*gone: cannot be loaded: .*corpus.folder"):
        read_hub(str(tmp_path / "gone"))
