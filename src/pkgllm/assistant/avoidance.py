"""Leave a bubble without retraining: a person's rules by one of three strategies."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pkgllm.assistant.bubbles import Bubble
from pkgllm.assistant.guidance import in_words
from pkgllm.assistant.scopes import Scopes
from pkgllm.corpora.catalogue import Catalogue
from pkgllm.errors import DataError
from pkgllm.graph.adaptation import Adapted, Strategy, adapt
from pkgllm.graph.personal_graph import PersonalGraph, Provenance
from pkgllm.graph.rules import Direction, Rule


@dataclass(frozen=True, slots=True)
class Steered:
    """What a model is given instead of a person's graph and request."""

    adapted: Adapted
    """The graph to read, and how it differs from the person's own."""
    request: str
    """The request to read."""


def steer(
    graph: PersonalGraph,
    request: str,
    rules: Sequence[Rule],
    strategy: Strategy,
    scopes: Scopes,
) -> Steered:
    """Apply a person's rules to what a model is going to read; the graph stays as it is.

    Args:
        graph: What the person said.
        request: What the person asks for.
        rules: What the person wants less or more of.
        strategy: How the rules are followed.
        scopes: The catalogue's properties.

    Raises:
        ConfigError: If a rule names a scope that the catalogue does not have.
        DataError: If a rule is about nothing in the catalogue, or the rules avoid every item that
            could be recommended.
    """
    items = {rule.id: scopes.items(rule.scope, rule.value) for rule in rules}
    _check_room(graph, rules, items, scopes.catalogue)
    match strategy:
        case "none":
            return Steered(Adapted(graph, ()), request)
        case "prompt":
            wishes = " ".join(
                f"{rule.direction.capitalize()} {in_words(rule.scope, rule.value)}."
                for rule in rules
            )
            return Steered(Adapted(graph, ()), " ".join(filter(None, (request, wishes))))
        case "adapt":
            return Steered(adapt(graph, rules, items), request)


def rule_about(
    text: str, scopes: Scopes, *, number: int, direction: Direction = "avoid", strength: float = 1.0
) -> Rule:
    """Make a rule of what a person calls something in their own words.

    Args:
        text: For example ``cats``.
        scopes: The catalogue's properties.
        number: Tells it from other rules.
        direction: Less or more of it.
        strength: How much it weighs.

    Raises:
        DataError: If nothing in the catalogue has to do with it.
    """
    scope, value = scopes.resolve(text)
    return _asked_for(number, scope, value, direction, strength)


def rule_against(bubble: Bubble) -> Rule:
    """Return the rule that leaves a bubble."""
    return _asked_for(1, bubble.scope, bubble.value, "avoid", 1.0)


def _asked_for(number: int, scope: str, value: str, direction: Direction, strength: float) -> Rule:
    said = Provenance("own_answer", "request")
    return Rule(f"asked-{number}", scope, value, direction, strength, said)


def _check_room(
    graph: PersonalGraph,
    rules: Sequence[Rule],
    items: Mapping[str, frozenset[str]],
    catalogue: Catalogue,
) -> None:
    avoiding = [rule for rule in rules if rule.direction == "avoid"]
    avoided = frozenset().union(*(items[rule.id] for rule in avoiding))
    candidates = {item.id for item in catalogue} - graph.tails
    if avoiding and candidates and candidates <= avoided:
        named = ", ".join(f"{rule.id} ({rule.scope} {rule.value})" for rule in avoiding)
        raise DataError(
            f"rules of {graph.owner!r}: {named} avoid all {len(candidates)} items that could be "
            "recommended; narrow them, or leave one away"
        )
