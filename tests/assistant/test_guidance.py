import pytest

from helpers.people import FILMS
from pkgllm.assistant.guidance import Constraints
from pkgllm.assistant.scopes import Scopes
from pkgllm.corpora.catalogue import Catalogue, Item
from pkgllm.errors import ConfigError


def test_years_in_the_wrong_order_are_an_error() -> None:
    with pytest.raises(ConfigError, match="got 1999 to 1990; swap them"):
        Constraints(from_year=1999, to_year=1990)


def test_no_constraints_are_false_and_allow_everything() -> None:
    assert not Constraints()
    assert Constraints(to_year=1990)
    assert Constraints().words == ""
    assert Constraints().allowed(Scopes(FILMS)).all()


def test_items_without_a_year_are_out_where_years_are_asked_for() -> None:
    scopes = Scopes(Catalogue([Item("1", "Gazpacho"), Item("2", "Signs (2002)")]))
    assert Constraints(from_year=1900).allowed(scopes).tolist() == [False, True]
    assert Constraints(to_year=2001).allowed(scopes).tolist() == [False, False]
    assert Constraints(from_year=2002, to_year=2002).allowed(scopes).tolist() == [False, True]
