import math

import pytest

from pkgllm.graph.personal_graph import Provenance
from pkgllm.graph.rules import Rule

SAID = Provenance("own_answer", "conversation/1")


def test_a_rule_at_full_strength_is_kept_as_given() -> None:
    rule = Rule("r1", "person", "Harrison Ford", "prefer", 1.0, SAID)
    assert (rule.scope, rule.value, rule.direction) == ("person", "Harrison Ford", "prefer")


@pytest.mark.parametrize("strength", [0.0, -0.5, 1.0001, math.nan, math.inf])
def test_a_strength_out_of_range_is_refused(strength: float) -> None:
    with pytest.raises(ValueError, match=r"rule 'r1': strength must be above 0 and at most 1, got"):
        Rule("r1", "genre", "Horror", "avoid", strength, SAID)


@pytest.mark.parametrize("what", ["id", "scope", "value"])
def test_empty_texts_are_refused_by_name(what: str) -> None:
    given = {"id": "r1", "scope": "genre", "value": "Horror", what: "  "}
    with pytest.raises(ValueError, match=f"{what} must not be empty, got '  '"):
        Rule(**given, direction="avoid", strength=0.5, provenance=SAID)


def test_another_direction_is_refused() -> None:
    with pytest.raises(ValueError, match=r"direction must be one of avoid, prefer, got 'hate'"):
        Rule("r1", "genre", "Horror", "hate", 0.5, SAID)  # type: ignore[arg-type] # what is tested
