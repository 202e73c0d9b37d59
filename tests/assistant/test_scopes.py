import pytest

from helpers.people import FILMS
from pkgllm.assistant.scopes import Scopes, franchise_of
from pkgllm.corpora.catalogue import Catalogue, Item
from pkgllm.corpora.domains import read_domain
from pkgllm.errors import ConfigError, DataError

SCOPES = Scopes(FILMS)


@pytest.mark.parametrize(
    ("scope", "value", "inside"),
    [
        ("genre", "HORROR", {"3", "4", "5"}),
        ("person", "Ann Lee", {"1", "2", "6"}),
        ("director", "ann  lee", {"1"}),
        ("decade", "1990s", {"1", "2", "6"}),
        ("decade", "80s", {"3", "4"}),
        ("decade", "1970", {"7"}),
        ("decade", "10's", {"8"}),
        ("franchise", "Silent Orchard", {"3", "4"}),
        ("keyword", "last", {"1", "2"}),
        ("keyword", "silent orchards", {"3", "4"}),
        ("keyword", "comedies", {"2", "5"}),
    ],
)
def test_items_inside_a_scope(scope: str, value: str, inside: set[str]) -> None:
    assert SCOPES.items(scope, value) == inside


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("horror films", ("genre", "horror")),
        ("films with Ann Lee", ("person", "Ann Lee")),
        ("the 1990s", ("decade", "1990s")),
        ("silent orchard", ("franchise", "Silent Orchard")),
        ("letters", ("keyword", "letters")),
    ],
)
def test_what_a_free_text_means(text: str, meant: tuple[str, str]) -> None:
    assert SCOPES.resolve(text) == meant


def test_a_word_is_no_part_of_another() -> None:
    # There is "Catnip Days", but no cat.
    with pytest.raises(DataError, match="'cats': nothing in the catalogue of 8 items"):
        SCOPES.resolve("cats")


def test_what_nobody_knows_is_an_error_that_offers_spellings() -> None:
    with pytest.raises(DataError, match=r"genre 'horor': .*\(did you mean horror\?\)"):
        SCOPES.items("genre", "horor")
    with pytest.raises(DataError, match=r"did you mean western\?"):
        SCOPES.resolve("westren")
    with pytest.raises(ConfigError, match=r"scope 'animal': .* it has genre, person, decade"):
        SCOPES.items("animal", "cat")


def test_the_scopes_of_a_domain_are_its_own_relations() -> None:
    videos, recipes = (Scopes(read_domain(d).catalogue) for d in ("cat_videos", "tomato_recipes"))
    assert videos.names == ("animal", "channel", "length", "theme", "decade", "franchise")
    assert videos.resolve("cats") == ("animal", "cat")
    assert len(videos.items("animal", "cat")) == 9
    assert recipes.resolve("tomatoes") == ("ingredient", "tomato")
    assert recipes.resolve("curries") == ("keyword", "curries")
    assert len(recipes.items("ingredient", "tomato")) == 7


def test_scopes_of_items_without_any_fact_or_year() -> None:
    scopes = Scopes(Catalogue([Item("1", "Alpha"), Item("2", "Alpha 2")]))
    assert scopes.names == ("decade", "franchise")
    assert list(scopes.values(scopes.catalogue["1"])) == [("franchise", "Alpha")]
    assert scopes.resolve("alpha") == ("franchise", "Alpha")


@pytest.mark.parametrize(
    ("name", "franchise"),
    [
        ("Star Wars: Episode V (1980)", "Star Wars"),
        ("Kill Bill Vol. 2 (2004)", "Kill Bill"),
        ("Rocky III (1982)", "Rocky"),
        ("2012 (2009)", "2012"),
        ("Signs (2002) [1]", "Signs"),
    ],
)
def test_franchises(name: str, franchise: str) -> None:
    assert franchise_of(name) == franchise
