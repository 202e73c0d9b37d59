"""Recommend to one person with a trained run: what ``pkgllm recommend`` does."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pkgllm.assistant.avoidance import rule_about, rule_against, steer
from pkgllm.assistant.bubbles import MIN_SUPPORT, Bubble, find_bubbles
from pkgllm.assistant.free_titles import written_catalogue
from pkgllm.assistant.guidance import Constraints
from pkgllm.assistant.reasons import Reasons, give_reasons
from pkgllm.assistant.recommend import NO_CONSTRAINTS, Recommendation, Recommender
from pkgllm.assistant.scopes import Scopes
from pkgllm.corpora.catalogue import Catalogue, Item
from pkgllm.corpora.catalogue_file import read_json_object
from pkgllm.errors import ConfigError, DataError
from pkgllm.graph.adaptation import Adapted, Strategy
from pkgllm.graph.personal_graph import PersonalGraph, Provenance
from pkgllm.graph.rules import Rule
from pkgllm.prompts.prompts import Prompt


@dataclass(frozen=True, slots=True)
class Question:
    """What a person asks."""

    request: str = ""
    constraints: Constraints = NO_CONSTRAINTS
    avoid: tuple[str, ...] = ()
    """What the person wants to leave, in their own words."""
    rules: tuple[Rule, ...] = ()
    standing_rules: tuple[Rule, ...] = ()
    """Those of the person's file, which need not be about this catalogue."""
    leave_bubble: bool = False
    """Whether to find the bubble to leave in the graph."""
    strategy: Strategy = "adapt"
    """How ``avoid``, ``rules`` and the bubble are followed."""
    k: int = 10
    why: bool = False
    free_text: bool = False
    """Whether the model writes the titles itself."""
    seed: int = 0
    """Of what it writes."""


@dataclass(frozen=True, slots=True)
class Advice:
    """What a person is recommended, and how it came about."""

    graph: PersonalGraph
    """The person's own."""
    prompt: Prompt
    """What the model read."""
    adapted: Adapted
    rules: tuple[Rule, ...]
    bubble: Bubble | None
    """The one that was found and left."""
    recommendations: tuple[Recommendation, ...]
    reasons: tuple[Reasons, ...] | None
    notes: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """Return everything but the prompt's text as values of JSON."""
        names = {fact.tail: fact.name for fact in self.graph.facts}
        reasons: Sequence[Reasons | None] = self.reasons or [None] * len(self.recommendations)
        return {
            "owner": self.graph.owner,
            "facts": len(self.graph.facts),
            "facts_left_out": self.prompt.facts_left_out,
            "rules": [_rule_json(rule) for rule in self.rules],
            "bubble": None if self.bubble is None else asdict(self.bubble),
            "changes": [
                {
                    "id": change.fact.tail,
                    "name": change.fact.name,
                    "said": change.fact.relation,
                    "adapted": change.relation,
                    "rule": change.rule.id,
                }
                for change in self.adapted.changes
            ],
            "recommendations": [
                {
                    "rank": rank,
                    "id": found.item.id,
                    "name": found.item.name,
                    "log_probability": found.log_probability,
                    **({} if why is None else {"why": _reasons_json(why, names)}),
                }
                for rank, (found, why) in enumerate(
                    zip(self.recommendations, reasons, strict=True), start=1
                )
            ],
            "notes": list(self.notes),
        }


def advise(recommender: Recommender, graph: PersonalGraph, question: Question) -> Advice:
    """Answer a person's question.

    Args:
        recommender: The model, and what it can recommend.
        graph: What the person said; it stays as it is.
        question: What is asked.

    Raises:
        ConfigError: If a constraint or a rule names a scope that the catalogue does not have.
        DataError: If nothing in the catalogue has to do with a constraint or a rule, nothing is
            left to recommend, no bubble is found to leave, or the request does not fit.
        ModelError: If the model gives no usable probability.
    """
    scopes = recommender.scopes
    standing = [rule for rule in question.standing_rules if _is_about(rule, scopes)]
    rules = [
        *standing,
        *question.rules,
        *(rule_about(text, scopes, number=n) for n, text in enumerate(question.avoid, start=1)),
    ]
    bubble = _bubble(graph, scopes) if question.leave_bubble else None
    if bubble is not None:
        rules.append(rule_against(bubble))
    steered = steer(graph, question.request, rules, question.strategy, scopes)
    asked = (steered.adapted.graph, steered.request, question.constraints)
    known = len([fact for fact in graph.facts if fact.tail in recommender.catalogue])
    if question.free_text:
        asked = _unchecked(*asked)
        written = written_catalogue(
            recommender, *asked, seed=question.seed, known=[fact.name for fact in graph.facts]
        )
        recommender = recommender.over(written)
    found = recommender.recommend(*asked, question.k, known=graph.tails)
    prompt = recommender.prompt(*asked)
    return Advice(
        graph=graph,
        prompt=prompt,
        adapted=steered.adapted,
        rules=tuple(rules),
        bubble=bubble,
        recommendations=found,
        reasons=give_reasons(recommender, asked[0], found, *asked[1:]) if question.why else None,
        notes=(
            *_rule_notes(question, standing),
            *_notes(question, asked[0], prompt, recommender.writer.max_tokens, known),
        ),
    )


def read_rules(path: Path, scopes: Scopes) -> tuple[Rule, ...]:
    """Read a person's rules from a file.

    The file is one JSON object; its ``rules`` are objects with ``value`` and, where they are not
    as here, ``scope`` (found in the catalogue as for ``--avoid``), ``direction`` (``avoid``) and
    ``strength`` (1).

    Raises:
        DataError: If the file cannot be read or holds something else, or nothing in the catalogue
            has to do with a value.
    """
    found = read_json_object(path, what="rules").get("rules")
    if not isinstance(found, list):
        raise DataError(f"{path}: rules must be a list, got {found!r:.60}")
    return tuple(
        _rule(rule, scopes, number, f"{path}: rule {number}")
        for number, rule in enumerate(found, start=1)
    )


def _rule(found: object, scopes: Scopes, number: int, where: str) -> Rule:
    if not isinstance(found, dict) or not isinstance(found.get("value"), str):
        raise DataError(f"{where}: must be an object with a text as its value, got {found!r:.80}")
    value, strength = found["value"], found.get("strength", 1.0)
    if not isinstance(strength, int | float):
        raise DataError(f"{where}: strength must be a number, got {strength!r:.60}")
    scope = found.get("scope")
    if scope is None:
        scope, value = scopes.resolve(value)
    try:
        return Rule(
            f"file-{number}",
            str(scope),
            value,
            found.get("direction", "avoid"),
            float(strength),
            Provenance("own_answer", "rules"),
        )
    except ValueError as error:
        raise DataError(f"{where}: {error}") from error


def graph_catalogue(graph: PersonalGraph) -> Catalogue:
    """Return what a graph speaks of as a catalogue, for a person who has no other.

    Raises:
        DataError: If it speaks of nothing.
    """
    if not graph.facts:
        raise DataError(
            f"graph of {graph.owner!r}: must hold a fact where there is no catalogue, got none"
        )
    return Catalogue(Item(fact.tail, fact.name) for fact in graph.facts)


def _bubble(graph: PersonalGraph, scopes: Scopes) -> Bubble:
    found = find_bubbles(graph, scopes)
    if not found:
        raise DataError(
            f"graph of {graph.owner!r}: no bubble is found: nothing is shared by {MIN_SUPPORT} "
            "likes or more beyond chance; name what to leave with --avoid"
        )
    return found[0]


def _is_about(rule: Rule, scopes: Scopes) -> bool:
    try:
        return bool(scopes.items(rule.scope, rule.value))
    except (ConfigError, DataError):
        return False


def _rule_notes(question: Question, standing: Collection[Rule]) -> Iterator[str]:
    for rule in question.standing_rules:
        if rule not in standing:
            yield (
                f"Rule {rule.id} of your graph ({rule.direction} {rule.scope} {rule.value}) is "
                "about nothing in this catalogue, and is passed over."
            )


def _unchecked(
    graph: PersonalGraph, request: str, constraints: Constraints
) -> tuple[PersonalGraph, str, Constraints]:
    """Leave only years to be checked; the rest becomes part of the request."""
    years = Constraints(from_year=constraints.from_year, to_year=constraints.to_year)
    others = Constraints(constraints.required, constraints.excluded)
    return graph, " ".join(filter(None, (request, others.words))), years


def _notes(
    question: Question, read: PersonalGraph, prompt: Prompt, max_tokens: int, known: int
) -> Iterator[str]:
    if prompt.facts_left_out:
        held = len(read.facts) - prompt.facts_left_out
        yield (
            f"The prompt holds {held} of {len(read.facts)} facts, since it may have {max_tokens} "
            "tokens: likes before dislikes before the rest, of each the newest."
        )
    if question.free_text:
        yield "The model wrote these titles by itself; whether they exist is not checked."
        if question.constraints.required or question.constraints.excluded:
            yield "Without a catalogue only years are checked; the model read the rest."
    elif known < len(read.facts):
        yield (
            f"The catalogue does not know {len(read.facts) - known} of {len(read.facts)} facts' "
            "items; the model read them all the same."
        )


def _rule_json(rule: Rule) -> dict[str, object]:
    return {
        "id": rule.id,
        "scope": rule.scope,
        "value": rule.value,
        "direction": rule.direction,
        "strength": rule.strength,
    }


def _reasons_json(reasons: Reasons, names: Mapping[str, str]) -> dict[str, object]:
    return {
        "facts": [
            {
                "id": found.fact.tail,
                "name": found.fact.name,
                "relation": found.fact.relation,
                "change": found.change,
                "share": found.share,
            }
            for found in reasons.facts
        ],
        "paths": [
            {
                "id": path.one,
                "name": names[path.one],
                "relation": path.relation,
                "value": path.value,
                "other_relation": path.other_relation,
            }
            for path in reasons.paths
        ],
    }
