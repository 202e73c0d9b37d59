import pytest

from pkgllm.assistant.linking import Linker
from pkgllm.corpora.catalogue import Item
from pkgllm.errors import DataError

LINKER = Linker(
    [
        Item("1", "Heat (1995)"),
        Item("2", "The Matrix (1999)"),
        Item("3", "Amélie (2001)"),
        Item("4", "It (1990)"),
        Item("5", "It (2017)"),
        Item("6", "300 (2007)"),
        Item("7", "Fast & Furious (2009)"),
        Item("8", "Schindler's List (1993)"),
    ]
)


@pytest.mark.parametrize(
    ("text", "item"),
    [
        ("Heat (1995)", "1"),
        ("heat 1995", "1"),
        ("HEAT", "1"),
        ("matrix", "2"),
        ("Matrix (1999)", "2"),
        ("Matrix, The (1999)", "2"),
        ("matrix, the", "2"),
        ("amelie", "3"),
        ("it 2017", "5"),
        ("300", "6"),
        ("fast and furious", "7"),
        ("schindlers list", "8"),
        ("Schindler\u2019s List", "8"),
    ],
)
def test_names_are_found_whatever_their_case_marks_article_and_year(text: str, item: str) -> None:
    assert LINKER.resolve(text).id == item


def test_an_exact_name_wins_over_one_with_the_same_letters() -> None:
    linker = Linker([Item("1", "heat (1995)"), Item("2", "Heat (1995)")])
    assert linker.resolve("Heat (1995)").id == "2"
    # Both are entries of one film, of which the first is meant.
    assert linker.resolve("HEAT").id == "1"


def test_entries_that_a_catalogue_tells_apart_are_asked_about() -> None:
    linker = Linker([Item("4", "Signs (2002) [4]"), Item("5", "Signs (2002) [5]")])
    with pytest.raises(DataError, match=r"may be any of Signs \(2002\) \[4\], Signs"):
        linker.resolve("Signs")


def test_what_may_be_several_names_all_of_them() -> None:
    with pytest.raises(
        DataError, match=r"'it' may be any of It \(1990\), It \(2017\); give the whole name"
    ):
        LINKER.resolve("it")


def test_another_year_is_another_film() -> None:
    with pytest.raises(
        DataError, match=r"no item is called 'Heat \(1996\)'; close are: Heat \(1995\)"
    ):
        LINKER.resolve("Heat (1996)")


def test_spellings_are_offered_the_closest_first_and_only_close_ones() -> None:
    assert LINKER.close("The Matricks")[0].id == "2"
    assert LINKER.close("zzzzzzzz") == []
    with pytest.raises(DataError, match=r"^no item is called 'zzzzzzzz'$"):
        LINKER.resolve("zzzzzzzz")
    assert LINKER.matches("") == LINKER.matches("?!") == ()
