"""Apply a person's rules without retraining, by one of three strategies."""

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
    """What a model reads in place of a person's graph and request."""

    adapted: Adapted
    """The graph to read, and its differences from the person's own."""
    request: str


def steer(
    graph: PersonalGraph,
    request: str,
    rules: Sequence[Rule],
    strategy: Strategy,
    scopes: Scopes,
) -> Steered:
    """Apply a person's rules to the graph and the request that a model reads.

    Raises:
        ConfigError: If a rule names a scope that the catalogue does not have.
        DataError: If a rule matches nothing in the catalogue, or the rules avoid every item that
            could be recommended.
    """
    items = {rule.id: scopes.items(rule.scope, rule.value) for rule in rules}
    _check_candidates(graph, rules, items, scopes.catalogue)
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
    """Return the rule about a property that a person names freely, for example ``cats``.

    Args:
        text: The person's words.
        scopes: The catalogue's properties.
        number: For the rule's id.
        direction: Less or more of it.
        strength: Weight, above 0 and at most 1.

    Raises:
        DataError: If nothing in the catalogue matches.
    """
    scope, value = scopes.resolve(text)
    return _requested(number, scope, value, direction, strength)


def rule_against(bubble: Bubble) -> Rule:
    """Return the rule that leaves a bubble."""
    return _requested(1, bubble.scope, bubble.value, "avoid", 1.0)


def _requested(number: int, scope: str, value: str, direction: Direction, strength: float) -> Rule:
    source = Provenance("own_answer", "request")
    return Rule(f"asked-{number}", scope, value, direction, strength, source)


def _check_candidates(
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
            "recommended; narrow them, or leave one out"
        )
