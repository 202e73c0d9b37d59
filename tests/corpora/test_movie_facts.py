import json
from pathlib import Path

import pytest

from pkgllm.corpora.movie_facts import read_movie_facts
from pkgllm.errors import DataError


def write(folder: Path, content: object) -> Path:
    path = folder / "movies.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def test_the_four_relations_are_read_and_nothing_else(tmp_path: Path) -> None:
    film = {
        "name": "Amber Kettle (1991)",
        "genre": ["drama", "comedy"],
        "director": ["Berit  Korvath "],
        "writer": [],
        "star": ["Ivo Corvane", "Ivo Corvane", " "],
        "plot": "A kettle.",
    }
    facts = read_movie_facts(write(tmp_path, {"7": film, "8": {}}))
    assert facts == {
        "7": {
            "genre": ("drama", "comedy"),
            "director": ("Berit Korvath",),
            "star": ("Ivo Corvane",),
        },
        "8": {},
    }


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], r"facts by film id must be one JSON object, got \[\]"),
        ({"7": ["drama"]}, r"film 7: facts must be an object, got \['drama'\]"),
        ({"7": {"genre": "drama"}}, r"film 7: genre must be a list of texts, got 'drama'"),
        ({"7": {"star": ["A", None]}}, r"film 7: star must be a list of texts, got \['A', None\]"),
    ],
)
def test_another_shape_is_refused_with_the_film(
    tmp_path: Path, content: object, message: str
) -> None:
    with pytest.raises(DataError, match=rf"movies.json: {message}"):
        read_movie_facts(write(tmp_path, content))


def test_a_cut_off_file_names_the_line(tmp_path: Path) -> None:
    path = tmp_path / "movies.json"
    path.write_text('{"7": {\n"genre": ["dra', encoding="utf-8")
    with pytest.raises(DataError, match=r"movies.json:2: not JSON: .*may be cut off"):
        read_movie_facts(path)


def test_a_file_that_is_not_there_or_not_text(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone.json: cannot be read: No such file"):
        read_movie_facts(tmp_path / "gone.json")
    (tmp_path / "movies.json").write_bytes(b'{"\xff": {}}')
    with pytest.raises(DataError, match=r"movies.json: not UTF-8 text: .* at byte 2"):
        read_movie_facts(tmp_path / "movies.json")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b'{"7": {"star": ["A \xed\xa0\xbd"]}}', r"movies.json: not UTF-8 text: .* at byte 19"),
        (b'{"7":\n {"star": ["B \\ud83d"]}}', r"movies.json:2: half of a surrogate pair"),
        (b'{"7": {},\n"8": {},\n"7": {}}', r'movies.json:3: the key "7" stands twice'),
    ],
)
def test_half_a_character_and_a_key_twice_are_refused(
    text: bytes, message: str, tmp_path: Path
) -> None:
    (tmp_path / "movies.json").write_bytes(text)
    with pytest.raises(DataError, match=message):
        read_movie_facts(tmp_path / "movies.json")
