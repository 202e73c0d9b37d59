import pytest

from helpers.people import FILMS, SAID, person
from pkgllm.assistant.avoidance import rule_about, steer
from pkgllm.assistant.scopes import Scopes
from pkgllm.errors import ConfigError, DataError
from pkgllm.graph.adaptation import STRATEGIES
from pkgllm.graph.rules import Rule

SCOPES = Scopes(FILMS)
ME = person({"3": "liked", "4": "liked", "6": "seen", "1": "liked"})


def test_the_three_strategies() -> None:
    rules = [
        rule_about("horror", SCOPES, number=1),
        Rule("r2", "person", "Ann Lee", "prefer", 0.5, SAID),
    ]
    none, prompt, adapted = (steer(ME, "Tonight.", rules, s, SCOPES) for s in STRATEGIES)
    assert (none.adapted.graph, none.request) == (ME, "Tonight.")
    assert prompt.adapted.graph == ME
    assert prompt.request == "Tonight. Avoid genre horror. Prefer with Ann Lee."
    assert adapted.request == "Tonight."
    changes = {c.fact.tail: c.relation for c in adapted.adapted.changes}
    assert changes == {"3": None, "4": None, "6": "liked"}
    assert none.adapted.changes == prompt.adapted.changes == ()


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_rules_that_avoid_everything_left_are_an_error(strategy: str) -> None:
    graph = person(dict.fromkeys(("1", "2", "6", "7", "8"), "seen"))
    rules = [rule_about("horror", SCOPES, number=1)]
    with pytest.raises(DataError, match=r"asked-1 \(genre horror\) avoid all 3 items"):
        steer(graph, "", rules, strategy, SCOPES)  # type: ignore[arg-type]


def test_a_rule_about_nothing_is_an_error() -> None:
    with pytest.raises(ConfigError, match="scope 'animal'"):
        steer(ME, "", [Rule("r1", "animal", "cat", "avoid", 1.0, SAID)], "none", SCOPES)
    with pytest.raises(DataError, match="'cats': nothing in the catalogue"):
        rule_about("cats", SCOPES, number=1)
