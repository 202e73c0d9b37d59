from datetime import UTC, datetime

import pytest

from pkgllm.assistant.editing import changes, find_items, known_items, new_item
from pkgllm.corpora.catalogue import Catalogue, Item
from pkgllm.errors import DataError
from pkgllm.graph.personal_graph import Fact, Moment, PersonalGraph, Provenance
from pkgllm.graph.personal_record import PersonalRecord, Verdict, Wish

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)
SAID = Provenance("own_answer", "conversation/1")
RECORD = PersonalRecord.of(
    PersonalGraph("me", (Fact("liked", "own", "My Film (2026)", Moment(0, 0), SAID),))
)
CATALOGUE = Catalogue([Item("1", "Heat (1995)"), Item("own", "Renamed (2026)")])


def test_the_catalogue_and_the_record_are_known_each_item_once() -> None:
    assert {item.id: item.name for item in known_items(RECORD, CATALOGUE)} == {
        "1": "Heat (1995)",
        "own": "Renamed (2026)",
    }
    assert [item.name for item in known_items(RECORD, None)] == ["My Film (2026)"]


def test_forgotten_items_stay_known() -> None:
    forgotten = RECORD.edited("forget", NOON, SAID, forget={"own"})
    assert [item.id for item in find_items(["my film"], forgotten, None)] == ["own"]


def test_an_item_named_twice_is_found_once() -> None:
    assert [i.id for i in find_items(["heat", "HEAT (1995)"], RECORD, CATALOGUE)] == ["1"]


def test_a_new_item_needs_an_id_of_its_own() -> None:
    assert new_item("Other", "2", RECORD, CATALOGUE) == Item("2", "Other")
    assert new_item("Heat (1995)", "1", RECORD, CATALOGUE).id == "1"
    with pytest.raises(
        DataError, match=r"--id 1: is the id of 'Heat .1995.', got the name 'Other'"
    ):
        new_item("Other", "1", RECORD, CATALOGUE)


def test_items_are_what_the_record_says_and_new_ones_what_most_are() -> None:
    dishes = Catalogue([Item(n, f"Dish {n}", item_class="Recipe") for n in "abc"])
    assert {item.item_class for item in known_items(RECORD, dishes)} == {"Recipe", "Movie"}
    assert new_item("Dal", "d", RECORD, dishes).item_class == "Recipe"
    assert new_item("Dal", "d", RECORD, None).item_class == "Movie"
    assert new_item("Dal", "d", PersonalRecord("me"), None).item_class == "Movie"
    liked = RECORD.edited("like", NOON, SAID, verdicts=[Verdict("liked", "d", "Dal", "Recipe")])
    assert new_item("Dal", "d", liked, None).item_class == "Recipe"


def test_the_changes_of_an_edit_are_told_with_what_they_replace() -> None:
    record = RECORD.edited("a", NOON, SAID, wishes=[Wish("avoid", "genre", "Horror", 0.5)])
    record = record.edited(
        "b",
        NOON,
        SAID,
        verdicts=[
            Verdict("disliked", "own", "My Film (2026)"),
            Verdict("seen", "1", "Heat (1995)"),
        ],
        wishes=[Wish("prefer", "genre", "Horror")],
    )
    record = record.edited("c", NOON, SAID, forget={"1"}, drop={"r2"})
    assert [list(changes(record, edit)) for edit in record.edits] == [
        ["avoid genre Horror (strength 0.5)"],
        [
            "disliked My Film (2026) (before: liked My Film (2026))",
            "seen Heat (1995)",
            "prefer genre Horror (before: avoid genre Horror (strength 0.5))",
        ],
        ["no more: seen Heat (1995)", "no more: prefer genre Horror"],
    ]
