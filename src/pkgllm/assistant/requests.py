"""Answer a person's request: rules, bubble, recommendations and reasons together."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pkgllm.assistant.avoidance import rule_about, rule_against, steer
from pkgllm.assistant.bubbles import MIN_SUPPORT, Bubble, find_bubbles
from pkgllm.assistant.free_titles import generated_catalogue
from pkgllm.assistant.guidance import Constraints, in_words
from pkgllm.assistant.reasons import Reasons, give_reasons
from pkgllm.assistant.recommend import NO_CONSTRAINTS, Recommendation, Recommender
from pkgllm.assistant.scopes import Scopes
from pkgllm.corpora.catalogue import Catalogue, Item
from pkgllm.corpora.catalogue_file import read_json_object
from pkgllm.errors import ConfigError, DataError
from pkgllm.graph.adaptation import Adapted, Strategy
from pkgllm.graph.personal_graph import PersonalGraph, Provenance
from pkgllm.graph.personal_record import PersonalRecord
from pkgllm.graph.rules import Rule
from pkgllm.prompts.prompts import Prompt

_RULE_FIELDS = ("id", "scope", "value", "direction", "strength")


@dataclass(frozen=True, slots=True)
class Request:
    """A person's request for recommendations."""

    text: str = ""
    """In the person's own words."""
    constraints: Constraints = NO_CONSTRAINTS
    avoid: tuple[str, ...] = ()
    """Properties to avoid, in the person's own words."""
    rules: tuple[Rule, ...] = ()
    """Must match the catalogue."""
    standing_rules: tuple[Rule, ...] = ()
    """The rules of the person's file; those that do not match the catalogue are ignored."""
    leave_bubble: bool = False
    """Whether to find a bubble in the graph and avoid it."""
    strategy: Strategy = "adapt"
    """How all rules are applied."""
    k: int = 10
    why: bool = False
    free_text: bool = False
    """Whether the model generates the titles."""
    seed: int = 0
    """Of the generation."""


@dataclass(frozen=True, slots=True)
class Response:
    """Recommendations for a person, and how they were made."""

    graph: PersonalGraph
    """The person's own."""
    prompt: Prompt
    adapted: Adapted
    rules: tuple[Rule, ...]
    bubble: Bubble | None
    """The bubble that was found and avoided."""
    recommendations: tuple[Recommendation, ...]
    reasons: tuple[Reasons, ...] | None
    notes: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """Return everything except the text of the prompt, as values of JSON."""
        names = {fact.tail: fact.name for fact in self.graph.facts}
        reasons: Sequence[Reasons | None] = self.reasons or [None] * len(self.recommendations)
        return {
            "owner": self.graph.owner,
            "facts": len(self.graph.facts),
            "facts_left_out": self.prompt.facts_left_out,
            "rules": [_fields(rule, *_RULE_FIELDS) for rule in self.rules],
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
                    "id": one.item.id,
                    "name": one.item.name,
                    "log_probability": one.log_probability,
                    **({} if why is None else {"why": _reasons_json(why, names)}),
                }
                for rank, (one, why) in enumerate(
                    zip(self.recommendations, reasons, strict=True), start=1
                )
            ],
            "notes": list(self.notes),
        }


def respond(recommender: Recommender, graph: PersonalGraph, request: Request) -> Response:
    """Answer a person's request from their graph.

    Raises:
        ConfigError: If a constraint or a rule names a scope that the catalogue does not have.
        DataError: If nothing in the catalogue matches a constraint or a rule, there is no
            candidate, no bubble is found, or the request does not fit into a prompt.
        ModelError: If the model gives no usable probability.
    """
    scopes = recommender.scopes
    standing = [rule for rule in request.standing_rules if _matches(rule, scopes)]
    rules = [
        *standing,
        *request.rules,
        *(rule_about(text, scopes, number=n) for n, text in enumerate(request.avoid, start=1)),
    ]
    bubble = _bubble(graph, scopes) if request.leave_bubble else None
    if bubble is not None:
        rules.append(rule_against(bubble))
    steered = steer(graph, request.text, rules, request.strategy, scopes)
    inputs = (steered.adapted.graph, steered.request, request.constraints)
    known = len([fact for fact in graph.facts if fact.tail in recommender.catalogue])
    if request.free_text:
        inputs = _with_years_only(*inputs)
        generated = generated_catalogue(
            recommender, *inputs, seed=request.seed, known=[fact.name for fact in graph.facts]
        )
        recommender = recommender.over(generated)
    recommendations = recommender.recommend(*inputs, request.k, known=graph.tails)
    prompt = recommender.prompt(*inputs)
    reasons = (
        give_reasons(recommender, inputs[0], recommendations, *inputs[1:]) if request.why else None
    )
    return Response(
        graph=graph,
        prompt=prompt,
        adapted=steered.adapted,
        rules=tuple(rules),
        bubble=bubble,
        recommendations=recommendations,
        reasons=reasons,
        notes=(
            *_rule_notes(request, standing),
            *_notes(request, inputs[0], prompt, recommender.writer.max_tokens, known),
        ),
    )


def respond_to_record(
    recommender: Recommender, record: PersonalRecord, request: Request
) -> Response:
    """Answer a request from a record: the rules adapt its graph.

    Rules that prefer are written into the prompt as well, since the graph may contain nothing of
    what they prefer.

    Raises:
        PkgllmError: As :func:`respond`.
    """
    preferred = " ".join(
        f"Prefer {in_words(rule.scope, rule.value)}."
        for rule in record.rules
        if rule.direction == "prefer"
    )
    text = " ".join(part for part in (request.text.strip(), preferred) if part)
    asked = replace(request, text=text, standing_rules=record.rules)
    return respond(recommender, record.graph, asked)


def read_rules(path: Path, scopes: Scopes) -> tuple[Rule, ...]:
    """Read a person's rules from a file.

    The file is one JSON object; its ``rules`` are objects with ``value`` and optionally ``scope``
    (default: looked up in the catalogue, as for ``--avoid``), ``direction`` (``avoid``) and
    ``strength`` (1).

    Raises:
        DataError: If the file cannot be read or has another form, or nothing in the catalogue
            matches a value.
    """
    rules = read_json_object(path, what="rules").get("rules")
    if not isinstance(rules, list):
        raise DataError(f"{path}: rules must be a list, got {rules!r:.60}")
    return tuple(
        _rule(rule, scopes, number, f"{path}: rule {number}")
        for number, rule in enumerate(rules, start=1)
    )


def _rule(given: object, scopes: Scopes, number: int, where: str) -> Rule:
    if not isinstance(given, dict) or not isinstance(given.get("value"), str):
        raise DataError(f"{where}: must be an object with a text as its value, got {given!r:.80}")
    value, strength = given["value"], given.get("strength", 1.0)
    if not isinstance(strength, int | float):
        raise DataError(f"{where}: strength must be a number, got {strength!r:.60}")
    scope = given.get("scope")
    if scope is None:
        scope, value = scopes.resolve(value)
    try:
        return Rule(
            f"file-{number}",
            str(scope),
            value,
            given.get("direction", "avoid"),
            float(strength),
            Provenance("own_answer", "rules"),
        )
    except ValueError as error:
        raise DataError(f"{where}: {error}") from error


def graph_catalogue(graph: PersonalGraph) -> Catalogue:
    """Return the items of a graph as a catalogue, for a person without another.

    Raises:
        DataError: If the graph is empty.
    """
    if not graph.facts:
        raise DataError(
            f"graph of {graph.owner!r}: must contain a fact if there is no catalogue, got none"
        )
    return Catalogue(Item(fact.tail, fact.name) for fact in graph.facts)


def _bubble(graph: PersonalGraph, scopes: Scopes) -> Bubble:
    bubbles = find_bubbles(graph, scopes)
    if not bubbles:
        raise DataError(
            f"graph of {graph.owner!r}: no bubble is found: no property is shared by {MIN_SUPPORT} "
            "likes or more beyond chance; name one with --avoid"
        )
    return bubbles[0]


def _matches(rule: Rule, scopes: Scopes) -> bool:
    try:
        return bool(scopes.items(rule.scope, rule.value))
    except (ConfigError, DataError):
        return False


def _rule_notes(request: Request, standing: Collection[Rule]) -> Iterator[str]:
    for rule in request.standing_rules:
        if rule not in standing:
            yield (
                f"Rule {rule.id} of your graph ({rule.direction} {rule.scope} {rule.value}) is "
                "about nothing in this catalogue, and is ignored."
            )


def _with_years_only(
    graph: PersonalGraph, request: str, constraints: Constraints
) -> tuple[PersonalGraph, str, Constraints]:
    """Keep only the years as constraints; the others become part of the request."""
    years = Constraints(from_year=constraints.from_year, to_year=constraints.to_year)
    others = Constraints(constraints.required, constraints.excluded)
    return graph, " ".join(filter(None, (request, others.words))), years


def _notes(
    request: Request, graph: PersonalGraph, prompt: Prompt, max_tokens: int, known: int
) -> Iterator[str]:
    if prompt.facts_left_out:
        num_facts = len(graph.facts) - prompt.facts_left_out
        yield (
            f"The prompt has {num_facts} of {len(graph.facts)} facts, because it is limited to "
            f"{max_tokens} tokens: likes before dislikes before the rest, the newest of each."
        )
    if request.free_text:
        yield "The model generated these titles; whether they exist is not checked."
        if request.constraints.required or request.constraints.excluded:
            yield "Without a catalogue only years are checked; the model read the others."
    elif known < len(graph.facts):
        yield (
            f"The items of {len(graph.facts) - known} of {len(graph.facts)} facts are not in the "
            "catalogue; the model read the facts nevertheless."
        )


def _reasons_json(reasons: Reasons, names: Mapping[str, str]) -> dict[str, object]:
    return {
        "facts": [
            {
                "id": one.fact.tail,
                **_fields(one.fact, "name", "relation"),
                **_fields(one, "change", "share"),
            }
            for one in reasons.facts
        ],
        "paths": [
            {"id": p.one, "name": names[p.one], **_fields(p, "relation", "value", "other_relation")}
            for p in reasons.paths
        ],
    }


def _fields(value: object, *names: str) -> dict[str, Any]:
    return {name: getattr(value, name) for name in names}
