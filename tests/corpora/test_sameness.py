from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pkgllm.corpora.catalogue import Catalogue, Item
from pkgllm.corpora.clients import Corpus
from pkgllm.corpora.sameness import SameItems, normal_form, with_one_entry_each
from pkgllm.graph.personal_graph import Fact, Moment, PersonalGraph, Provenance

SAID = Provenance("own_answer", "conversation/1")


def groups(*names: str) -> list[list[str]]:
    items = [Item(f"{number:02}", name) for number, name in enumerate(names)]
    same = SameItems(items)
    return [[same._items[each].name for each in sorted(group)] for group in same.several()]


@pytest.mark.parametrize(
    "names",
    [
        ("Ran (1985)", "Ran"),
        ("Ran (1985)", "RAN (1985)"),
        ("Ran (1985)", "Ran 1985"),
        ("Ran 1985", "Ran"),
        ("Face/Off (1997)", "Face Off (1997)"),
        ("Amélie (2001)", "Ame\u0301lie (2001)"),
        ("Se\u200b7en (1995)", "Se7en (1995)"),
        ("The Matrix (1999)", "Matrix, The (1999)"),
        ("Ocean's Eleven", "Ocean\u2019s Eleven (2001)"),
        ("\uff32\uff21\uff2e (1985)", "Ran (1985)"),
        ("千と千尋の神隠し (2001)", "千と千尋の神隠し"),
    ],
)
def test_names_of_one_film(names: tuple[str, ...]) -> None:
    assert groups(*names) == [list(names)]


@pytest.mark.parametrize(
    "names",
    [
        ("Batman (1966)", "Batman (1989)"),
        ("Batman (1966)", "Batman (1989)", "Batman"),
        ("Blade Runner (1982)", "Blade Runner 2049 (2017)"),
        ("Blade Runner (1982)", "Blade Runner 2049"),
        ("Rocky (1976)", "Rocky II (1979)"),
        ("1917 (2019)", "1918 (1985)"),
        ("!!!", "???"),
        ("Up (2009)", "Step Up (2006)"),
    ],
)
def test_names_of_different_films(names: tuple[str, ...]) -> None:
    assert groups(*names) == []


def test_what_is_not_told_by_the_name() -> None:
    dish = Item("1", "Ran", item_class="Recipe")
    assert SameItems([dish, Item("2", "Ran (1985)")]).several() == ()
    here = {"same_as": ("https://film.example/7",)}
    same = SameItems([Item("1", "Léon", here), Item("2", "The Professional (1994)", here)])
    assert same.several() == (frozenset({"1", "2"}),)
    assert same.first("1") == "2"
    # Two entries of one name, told apart by their ids.
    twins = SameItems([Item("7", "Signs (2002) [7]"), Item("8", "Signs (2002) [8]")])
    assert twins.twins("8") == {"7", "8"}
    assert twins.named("signs") == {"7", "8"}
    assert twins.twins("elsewhere") == {"elsewhere"}


@given(st.lists(st.text("aB 1\u0301'-", max_size=5), max_size=8))
def test_sameness_is_an_equivalence_and_names_mean_what_their_entries_do(names: list[str]) -> None:
    items = [Item(str(number), name) for number, name in enumerate(names)]
    same = SameItems(items)
    for item in items:
        assert item.id in same.twins(item.id)
        assert all(same.twins(each) == same.twins(item.id) for each in same.twins(item.id))
        assert same.first(same.first(item.id)) == same.first(item.id)
        assert item.id in same.named(item.name, item.item_class)


@given(st.text(max_size=8))
def test_a_normal_form_is_its_own(text: str) -> None:
    assert normal_form(normal_form(text)) == normal_form(text)


def fact(relation: str, tail: str, name: str, session: int) -> Fact:
    return Fact(relation, tail, name, Moment(session, 0), SAID)  # type: ignore[arg-type]


def test_a_corpus_with_one_entry_each() -> None:
    catalogue = Catalogue(
        [
            Item("1", "Ran"),
            Item("2", "Ran (1985)", {"genre": ("war",)}),
            Item("3", "Heat (1995)", {"genre": ("crime",)}),
        ]
    )
    graph = PersonalGraph(
        "p",
        (
            fact("liked", "1", "Ran", 0),
            fact("seen", "2", "Ran (1985)", 1),
            fact("seen", "3", "Heat (1995)", 2),
        ),
    )
    corpus = Corpus("x", catalogue, (graph,), {})
    one = with_one_entry_each(corpus)
    assert one.catalogue.names == ("Ran (1985)", "Heat (1995)")
    # The verdict of the other entry is stronger than what was said later.
    assert one.graphs[0].facts == (
        replace(graph.facts[0], tail="2", name="Ran (1985)"),
        graph.facts[2],
    )
    assert one.notes[0].startswith("Same items: 1 of 3 entries of the catalogue count as another")
    assert with_one_entry_each(one) is one
