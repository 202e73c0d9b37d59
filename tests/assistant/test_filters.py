import pytest

from pkgllm.assistant.filters import wished_constraints
from pkgllm.assistant.guidance import Constraints
from pkgllm.assistant.mentions import MentionFinder
from pkgllm.assistant.scopes import Scopes
from pkgllm.corpora.catalogue import Catalogue, Item

CATALOGUE = Catalogue(
    [
        Item("1", "Rocky (1976)", {"genre": ("drama", "sport"), "star": ("Ann Lee",)}),
        Item("2", "Airplane! (1980)", {"genre": ("comedy",)}),
        Item("3", "Alien (1979)", {"genre": ("horror", "sci-fi")}),
        Item("4", "Pretty Woman (1990)", {"genre": ("comedy", "romance")}),
    ]
)
FINDER, SCOPES = MentionFinder(CATALOGUE), Scopes(CATALOGUE)


def wished(text: str) -> Constraints:
    return wished_constraints(text, FINDER.find(text), SCOPES)


def genres(*names: str) -> tuple[tuple[str, str], ...]:
    return tuple(("genre", name) for name in names)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("something funny from the nineties", Constraints(genres("comedy"), (), 1990, 1999)),
        ("Show me something funny from the 90s", Constraints(genres("comedy"), (), 1990, 1999)),
        ("I'm looking for a romantic comedy", Constraints(genres("comedy", "romance"))),
        ("something scary, but no sci-fi", Constraints(genres("horror"), genres("sci-fi"))),
        ("nothing too scary please", Constraints((), genres("horror"))),
        ("a movie with Ann Lee please, any ideas?", Constraints((("person", "Ann Lee"),))),
        ("recommend a drama with Ann Lee", Constraints((*genres("drama"), ("person", "Ann Lee")))),
        ("can you recommend a drama or a comedy?", Constraints()),
        ("show me something before 1980", Constraints(to_year=1979)),
        ("something newer than 1985", Constraints(from_year=1986)),
        ("something between 1970 and 1985", Constraints(from_year=1970, to_year=1985)),
        ("a comedy from 1980, any suggestions?", Constraints(genres("comedy"), (), 1980, 1980)),
        ("something from the 2010s", Constraints(from_year=2010, to_year=2019)),
        ("I loved Rocky, it was funny", Constraints()),
        ("thanks, you are funny", Constraints()),
        ("hello", Constraints()),
    ],
)
def test_what_a_wish_requires(text: str, expected: Constraints) -> None:
    actual = wished(text)
    assert set(actual.required) == set(expected.required)
    assert actual.excluded == expected.excluded
    assert (actual.from_year, actual.to_year) == (expected.from_year, expected.to_year)


def test_any_relation_of_a_catalogue_constrains() -> None:
    dishes = Catalogue(
        [
            Item("1", "Gazpacho", {"ingredient": ("tomato",)}),
            Item("2", "Flatbread", {"ingredient": ("flour",)}),
        ]
    )
    text = "give me something with tomatoes"
    constraints = wished_constraints(text, MentionFinder(dishes).find(text), Scopes(dishes))
    assert constraints.required == (("ingredient", "tomato"),)
