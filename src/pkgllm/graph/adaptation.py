"""Adapt a copy of a graph by rules, so that recommendations leave a bubble.

A bubble (PIE, personal information environment) is made of likes that have something in common. A
model that reads them recommends more of the same. An adapted graph weakens them, so the same model,
without any training, recommends from outside.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from pkgllm.graph.personal_graph import Fact, PersonalGraph, Relation
from pkgllm.graph.rules import Rule

Strategy = Literal["none", "prompt", "adapt"]
"""``none`` ignores rules, ``prompt`` writes them into the prompt, ``adapt`` changes the graph."""
STRATEGIES: tuple[Strategy, ...] = ("none", "prompt", "adapt")

_DISLIKED_FROM = 1 / 3
_REMOVED_FROM = 2 / 3


@dataclass(frozen=True, slots=True)
class Change:
    """How an adapted graph differs in one fact."""

    fact: Fact
    """In the original graph."""
    relation: Relation | None
    """In the adapted graph; None where the fact is left out."""
    rule: Rule
    """The rule that decided."""


@dataclass(frozen=True, slots=True)
class Adapted:
    """An adapted copy of a graph, and its differences from the original."""

    graph: PersonalGraph
    changes: tuple[Change, ...]
    """In order of time."""


def adapt(
    graph: PersonalGraph, rules: Sequence[Rule], items_by_rule: Mapping[str, Collection[str]]
) -> Adapted:
    """Return a copy of a graph, changed by rules.

    Of a rule that avoids, by its strength :math:`s`:

    - a like inside its scope becomes ``seen`` for :math:`s < 1/3`, a dislike for
      :math:`s < 2/3`, and is left out otherwise, because a small model recommends items that
      resemble the names in its prompt, whatever the relation;
    - an item ``seen`` outside of every avoided scope becomes a like, in place of those.

    A rule that prefers turns ``seen`` inside its scope into a like, whatever its strength. The
    strongest rule about an item decides; of equally strong ones, one that avoids.

    Args:
        graph: Is not changed.
        rules: In any order.
        items_by_rule: Ids of the items inside each rule's scope, by the rule's id.

    Example:
        >>> from pkgllm.graph.personal_graph import Moment, Provenance
        >>> said = Provenance("own_answer", "conversation/1")
        >>> graph = PersonalGraph("p", (
        ...     Fact("liked", "1", "Cat Nap", Moment(0, 0), said),
        ...     Fact("seen", "2", "Dog Day", Moment(0, 1), said),
        ... ))
        >>> rule = Rule("r1", "keyword", "cat", "avoid", 1.0, said)
        >>> adapted = adapt(graph, [rule], {"r1": {"1"}})
        >>> [(fact.relation, fact.name) for fact in adapted.graph.facts]
        [('liked', 'Dog Day')]
    """
    ordered = sorted(rules, key=lambda rule: (-rule.strength, rule.direction != "avoid", rule.id))
    avoiding = next((rule for rule in ordered if rule.direction == "avoid"), None)
    facts: list[Fact] = []
    changes: list[Change] = []
    for fact in graph.facts:
        inside = next((rule for rule in ordered if fact.tail in items_by_rule[rule.id]), None)
        rule = inside or avoiding
        relation = fact.relation if rule is None else _relation(fact, rule, inside is not None)
        if rule is not None and relation != fact.relation:
            changes.append(Change(fact, relation, rule))
        if relation is not None:
            facts.append(replace(fact, relation=relation))
    return Adapted(graph.only(facts), tuple(changes))


def _relation(fact: Fact, rule: Rule, inside: bool) -> Relation | None:
    match fact.relation:
        case "liked" if inside and rule.direction == "avoid":
            if rule.strength < _DISLIKED_FROM:
                return "seen"
            return "disliked" if rule.strength < _REMOVED_FROM else None
        case "seen" if inside == (rule.direction == "prefer"):
            return "liked"
        case unchanged:
            return unchanged
