import pytest
from hypothesis import given
from hypothesis import strategies as st

from pkgllm.corpora.catalogue import Catalogue, Item, tell_apart
from pkgllm.errors import DataError

item_lists = st.lists(
    st.builds(Item, st.text(max_size=4), st.sampled_from(["Heat", "Ran", "Big"])),
    unique_by=lambda item: item.id,
    min_size=1,
    max_size=8,
)


def test_the_column_of_an_item_does_not_depend_on_the_order_given() -> None:
    items = [Item("20", "B"), Item("10", "A"), Item("9", "C")]
    catalogue = Catalogue(items)
    # ids are texts, so "9" comes after "20"
    assert [item.id for item in catalogue] == ["10", "20", "9"]
    assert catalogue.names == ("A", "B", "C")
    assert catalogue.index_by_id == {"10": 0, "20": 1, "9": 2}
    assert Catalogue(reversed(items)).items == catalogue.items


def test_items_are_found_by_id() -> None:
    catalogue = Catalogue([Item("7", "Heat", {"genre": ("crime",)})])
    assert "7" in catalogue
    assert "8" not in catalogue
    assert catalogue["7"].facts["genre"] == ("crime",)
    assert len(catalogue) == 1


def test_an_empty_catalogue_is_refused() -> None:
    with pytest.raises(DataError, match="the catalogue is empty"):
        Catalogue([])


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (Item("7", "Ran"), "2 items with the same id: '7'"),
        (Item("8", "Heat"), "2 items with the same name: 'Heat'"),
    ],
)
def test_an_id_or_a_name_that_stands_twice_is_refused(second: Item, message: str) -> None:
    with pytest.raises(DataError, match=message):
        Catalogue([Item("7", "Heat"), second])


@given(item_lists)
def test_told_apart_items_have_distinct_names_and_keep_the_rest(items: list[Item]) -> None:
    told = tell_apart(items)
    assert len({item.name for item in told}) == len(told)
    assert [item.id for item in told] == [item.id for item in items]
    names = [item.name for item in items]
    for before, after in zip(items, told, strict=True):
        assert (before.name == after.name) == (names.count(before.name) == 1)
    assert tell_apart(reversed(items)) == told[::-1]
