import pytest
from hypothesis import given
from hypothesis import strategies as st

from pkgllm.corpora.catalogue import Catalogue, Item, tell_apart
from pkgllm.evaluation.lists.lists import TitleLinker, answer_lines, list_of_items, read_list

NAMES = {
    "a": "The Amber Kettle (1971)",
    "b": "The Amber Kettle 2 (1974)",
    "c": "Dusty Ferry (1980)",
    "d": "Dusty Ferry (2003)",
    "e": '"Crooked" Heron (1990)',
    "f": "12. Lagoon Street (1999)",
    "g": "9 (2011)",
    "h": "Zinc Oboe",
    "i": "Zinc Oboe (1966)",
    "j": "Café Isthmus (1955)",
}
LINKER = TitleLinker(Catalogue([Item(item, name) for item, name in NAMES.items()]))


@pytest.mark.parametrize(
    ("line", "item"),
    [
        ("The Amber Kettle (1971)", "a"),
        ("  the  AMBER kettle\t(1971) ", "a"),
        ("- The Amber Kettle (1971)", "a"),
        ("-The Amber Kettle (1971)", "a"),
        ("• “The Amber Kettle (1971)”", "a"),
        ("3. **The Amber Kettle (1971)**", "a"),
        ("**3. The Amber Kettle (1971)**", "a"),
        ("(12) The Amber Kettle (1971)", "a"),
        ("- 1) 'The Amber Kettle (1971)'", "a"),
        ("*The Amber Kettle (1971)*", "a"),
        ("* The Amber Kettle (1971)", "a"),
        ("The Amber Kettle (1971)**", "a"),
        # Unicode's compatibility forms: a full-width letter, a letter with its accent apart.
        ("The \uff21mber Kettle (1971)", "a"),
        ("Cafe\u0301 Isthmus (1955)", "j"),
        # Without the year: only where one film has the title.
        ("the amber kettle", "a"),
        ("The Amber Kettle 2", "b"),
        ("Dusty Ferry", None),
        ("Dusty Ferry (2003)", "d"),
        # A name that has no year is a whole surface form, and goes before a title.
        ("zinc oboe", "h"),
        ("Zinc Oboe (1966)", "i"),
        # What looks like a mark may belong to the title.
        ('"Crooked" Heron (1990)', "e"),
        ('1. "Crooked" Heron (1990)', "e"),
        ("12. Lagoon Street (1999)", "f"),
        ("2. 12. Lagoon Street (1999)", "f"),
        ("9 (2011)", "g"),
        ("1. 9 (2011)", "g"),
        # Anything else links to nothing.
        ("The Amber Kettle (1972)", None),
        ("The Amber Kettle (1971) is lovely", None),
        ("The Amber Kettl (1971)", None),
        ("Kettle (1971)", None),
        ("The Amber Kettle 3 (1977)", None),
        ("Here is a list:", None),
        ("", None),
    ],
)
def test_a_line_names_an_item_or_none(line: str, item: str | None) -> None:
    assert LINKER.link(line) == item


def test_an_ambiguous_form_links_only_where_it_is_exact() -> None:
    films = Catalogue([Item("1", "Iron Acorn (1950)"), Item("2", "IRON Acorn (1950)")])
    linker = TitleLinker(films)
    assert linker.link("- Iron Acorn (1950)") == "1"
    assert linker.link("IRON Acorn (1950)") == "2"
    assert linker.link("iron acorn (1950)") is None
    assert linker.link("iron acorn") is None


def test_twins_that_are_told_apart_by_their_ids_are_two_films() -> None:
    twins = [Item("1", "Linen Gable (1950)"), Item("2", "Linen Gable (1950)")]
    linker = TitleLinker(Catalogue(tell_apart([*twins, Item("3", "Linen Gable (1999)")])))
    assert linker.link("Linen Gable (1950) [2]") == "2"
    assert linker.link("Linen Gable (1950)") is None
    assert linker.link("Linen Gable") is None
    assert linker.link("Linen Gable (1999)") == "3"


@given(
    st.sampled_from(sorted(NAMES)),
    st.sampled_from(["", "- ", "* ", "7. ", "7) ", "(7) ", "- 7. "]),
    st.sampled_from(["", '"', "**", "'"]),
    st.sampled_from([str, str.upper, str.lower, str.title]),
)
def test_decoration_and_case_change_nothing(
    item: str, mark: str, quote: str, change: type[str]
) -> None:
    assert LINKER.link(f"{mark}{quote}{change(NAMES[item])}{quote}") == item


def test_every_step_of_an_answer_is_kept() -> None:
    text = (
        "Sure, here you are:\n\n"
        "1. Dusty Ferry (1980)\n"
        "2. The Amber Kettle (1971)\n"
        "3. dusty ferry (1980)\n"
        "4. Nowhere at All (1900)\n"
        "5. Dusty Ferry (2003)\n"
        "---\n"
        "6. 9 (2011)\n"
    )
    found = read_list(text, LINKER, visible={"a"}, k=2)
    assert found.answered
    assert found.num_lines == 7
    assert found.linked == ("c", "a", "c", "d", "g")
    assert found.novel == ("c", "c", "d", "g")
    assert found.items == ("c", "d")


@pytest.mark.parametrize("text", ["", "\n \n", "---\n***", "- \n- "])
def test_an_answer_without_a_line(text: str) -> None:
    found = read_list(text, LINKER, visible=(), k=10)
    assert not found.answered
    assert (found.num_lines, found.linked, found.novel, found.items) == (0, (), (), ())


def test_an_answer_that_names_nothing_is_an_answer() -> None:
    found = read_list("I cannot tell.", LINKER, visible=(), k=10)
    assert found.answered
    assert (found.num_lines, found.items) == (1, ())


@given(
    st.lists(st.sampled_from(sorted(NAMES)), max_size=25),
    st.frozensets(st.sampled_from(sorted(NAMES))),
    st.integers(1, 12),
)
def test_a_list_holds_the_first_new_items_once(
    named: list[str], visible: frozenset[str], k: int
) -> None:
    found = read_list("\n".join(NAMES[item] for item in named), LINKER, visible=visible, k=k)
    assert found == list_of_items(named, visible=visible, k=k)
    assert found.num_lines == len(named)
    assert found.linked == tuple(named)
    assert len(set(found.items)) == len(found.items) <= k
    assert not visible & set(found.items)
    expected = sorted(set(named) - visible, key=named.index)
    assert list(found.items) == expected[:k]


@given(st.text())
def test_any_text_can_be_read(text: str) -> None:
    found = read_list(text, LINKER, visible=(), k=3)
    assert found.num_lines == len(answer_lines(text)) >= len(found.linked) >= len(found.items)


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="k must be at least 1, got 0"):
        read_list("Zinc Oboe", LINKER, visible=(), k=0)
    with pytest.raises(ValueError, match="got 1 lines and 2 items"):
        list_of_items(["a", "b"], visible=(), k=1, num_lines=1)
