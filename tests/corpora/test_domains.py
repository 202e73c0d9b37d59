import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pkgllm.corpora.catalogue import year_of
from pkgllm.corpora.domains import SHIPPED, read_domain
from pkgllm.errors import DataError
from pkgllm.shipped import domains_folder


@pytest.mark.parametrize("name", SHIPPED)
def test_the_shipped_domains_hold_people_who_later_leave_their_bubble(name: str) -> None:
    domain = read_domain(name)
    assert 20 <= len(domain.catalogue) <= 60
    assert not {relation for item in domain.catalogue for relation in item.facts} & {
        "genre",
        "director",
        "writer",
        "star",
    }
    assert all(year_of(item.name) is None for item in domain.catalogue)
    classes = {"cat_videos": "VideoObject", "tomato_recipes": "Recipe"}
    assert {item.item_class for item in domain.catalogue} == {classes[name]}
    assert len(domain.people) == 8
    for person in domain.people:
        assert len(person.graph.with_relation("liked")) == 6
        assert {fact.item_class for fact in person.graph.facts} == {classes[name]}
        assert person.held_out
        assert not person.graph.tails & set(person.held_out)
        assert set(person.held_out) <= {item.id for item in domain.catalogue}


FAULTS: dict[str, Callable[[dict[str, Any]], object]] = {
    "no people": lambda domain: domain.pop("people"),
    "a stranger's item": lambda domain: domain["people"][0]["facts"].append(["liked", "x"]),
    "a word that is no relation": lambda domain: domain["people"][0]["facts"].append(
        ["loved", "v00"]
    ),
    "a constraint without a scope": lambda domain: domain["constraint"].pop("scope"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_broken_domain_is_an_error_that_names_the_file(tmp_path: Path, fault: str) -> None:
    domain = json.loads((domains_folder() / "cat_videos.json").read_text())
    FAULTS[fault](domain)
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(domain))
    with pytest.raises(DataError, match=r"mine\.json: must hold a domain"):
        read_domain(str(path))
