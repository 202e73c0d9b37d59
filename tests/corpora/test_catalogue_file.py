from pathlib import Path

import pytest

from pkgllm.corpora.catalogue import Catalogue, Item, tell_apart
from pkgllm.corpora.catalogue_file import read_catalogue_file, write_catalogue_file
from pkgllm.errors import DataError


def read(tmp_path: Path, text: str) -> object:
    path = tmp_path / "items.json"
    path.write_text(text, encoding="utf-8")
    return read_catalogue_file(path)


def test_items_with_and_without_facts(tmp_path: Path) -> None:
    path = tmp_path / "items.json"
    path.write_text(
        '{"items": [{"id": "b", "name": "Dal", "facts": {"course": ["main"], "diet": []}},'
        ' {"id": "a", "name": "Rye Bread"}], "more": 1}'
    )
    found = read_catalogue_file(path)
    assert found.names == ("Rye Bread", "Dal")
    assert found["b"].facts == {"course": ("main",)}
    assert found["a"].facts == {}


def test_what_is_written_is_read_back_equal(tmp_path: Path) -> None:
    items = [
        Item("2", "Amélie \U0001f3ac (1999)"),
        Item("1", "Ran (1985)", {"genre": ("war",), "star": ("A", "B")}),
        Item("3", "Dal", item_class="Recipe"),
    ]
    write_catalogue_file(Catalogue(items), tmp_path / "catalogue.json")
    assert read_catalogue_file(tmp_path / "catalogue.json").items == Catalogue(items).items


def test_items_are_films_or_what_the_file_or_they_themselves_say(tmp_path: Path) -> None:
    items = '[{"id": "a", "name": "Dal"}, {"id": "b", "name": "Ran", "item_class": "Movie"}]'
    (tmp_path / "films.json").write_text(f'{{"items": {items}}}')
    (tmp_path / "mixed.json").write_text(f'{{"item_class": "Recipe", "items": {items}}}')
    for name, expected in (("films", ["Movie", "Movie"]), ("mixed", ["Recipe", "Movie"])):
        found = read_catalogue_file(tmp_path / f"{name}.json")
        assert [item.item_class for item in found] == expected


def test_items_that_share_a_name_stay_what_they_are() -> None:
    twins = [Item("1", "Dal", item_class="Recipe"), Item("2", "Dal", item_class="Book")]
    assert [(item.name, item.item_class) for item in tell_apart(twins)] == [
        ("Dal [1]", "Recipe"),
        ("Dal [2]", "Book"),
    ]


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ('{"items": [\n{"id": "a"', "items.json:2: not JSON"),
        ("[]", "must be one JSON object"),
        ('{"item_class": "recipe", "items": []}', "items.json: item_class: a class of schema.org"),
        (
            '{"items": [{"id": "a", "name": "Dal", "item_class": 7}]}',
            "item 1: item_class: a class of schema.org, such as Recipe, is needed",
        ),
        ("{}", "items must be a list, got None"),
        ('{"items": []}', "the catalogue is empty"),
        ('{"items": [3]}', "item 1: must be an object"),
        ('{"items": [{"id": "a", "name": " "}]}', "item 1: name must be a text"),
        ('{"items": [{"id": 7, "name": "Dal"}]}', "item 1: id must be a text"),
        ('{"items": [{"id": "a", "name": "Dal", "facts": []}]}', "facts must be an object"),
        (
            '{"items": [{"id": "a", "name": "Dal", "facts": {"diet": "vegan"}}]}',
            "diet must be a list of texts",
        ),
        (
            '{"items": [{"id": "a", "name": "Dal"}, {"id": "b", "name": "Dal"}]}',
            "2 items with the same name: 'Dal'",
        ),
    ],
)
def test_anything_else_is_an_error_that_says_where(tmp_path: Path, text: str, pieces: str) -> None:
    with pytest.raises(DataError) as error:
        read(tmp_path, text)
    assert pieces in str(error.value)
    assert str(tmp_path) in str(error.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read: No such file"):
        read_catalogue_file(tmp_path / "none.json")


def test_a_file_that_is_not_text(tmp_path: Path) -> None:
    (tmp_path / "items.json").write_bytes(b'{"\xff": []}')
    with pytest.raises(DataError, match=r"items.json: not UTF-8 text: .* at byte 2"):
        read_catalogue_file(tmp_path / "items.json")
