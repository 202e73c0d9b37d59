"""Which facts of a client's training graph are hidden together, and which come before them."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from pkgllm.graph.personal_graph import Fact, PersonalGraph


@dataclass(frozen=True, slots=True)
class WindowSettings:
    """How a graph is cut into hidden facts and contexts."""

    hidden_facts: int
    """Facts in a window; fewer where the graph is short."""
    stride: int
    """Facts between the starts of two windows."""
    min_context: int
    """Facts that the context must hold."""
    max_groups: int
    """Windows to yield at most."""
    max_context: int | None = None
    """Facts that the context may hold, the newest; any number when None."""
    max_groups_per_fact: int | None = None
    """Windows that a fact may enter, hidden or in the context; any number when None."""


def hidden_windows(
    graph: PersonalGraph, settings: WindowSettings
) -> Iterator[tuple[PersonalGraph, tuple[Fact, ...]]]:
    """Yield (context, hidden facts) pairs, the latest first.

    The hidden facts are consecutive liked or disliked ones with at least one liked; the context is
    what the graph holds strictly before them. A fact that has entered as many windows as it may is
    left out of later contexts, and a window that hides it is skipped.

    Args:
        graph: A client's training graph.
        settings: How it is cut.

    Example:
        >>> from pkgllm.graph.personal_graph import Moment, Provenance
        >>> said = Provenance("own_answer", "conversation/1")
        >>> facts = [Fact("liked", str(n), f"Film {n}", Moment(n, 0), said) for n in range(6)]
        >>> graph = PersonalGraph("p1", tuple(facts))
        >>> def show(settings):
        ...     for context, hidden in hidden_windows(graph, settings):
        ...         print([fact.tail for fact in context.facts], [fact.tail for fact in hidden])
        >>> show(WindowSettings(2, 2, min_context=1, max_groups=16))
        ['0', '1', '2', '3'] ['4', '5']
        ['0', '1'] ['2', '3']
        >>> show(WindowSettings(2, 2, min_context=0, max_groups=16, max_groups_per_fact=1))
        ['0', '1', '2', '3'] ['4', '5']
        >>> show(WindowSettings(2, 2, 0, 16, max_context=1, max_groups_per_fact=2))
        ['3'] ['4', '5']
        ['1'] ['2', '3']
        [] ['0', '1']
    """
    verdicts = graph.with_relation("liked", "disliked")
    latest = max(len(verdicts) - settings.hidden_facts, min(1, len(verdicts) - 1))
    entered: Counter[str] = Counter()
    exhausted: set[str] = set()
    yielded = 0
    for start in range(latest, -1, -settings.stride):
        hidden = verdicts[start : start + settings.hidden_facts]
        earlier = graph.before(hidden[0].time).without(exhausted).facts
        # An earlier window has no larger context than this one.
        if yielded == settings.max_groups or len(earlier) < settings.min_context:
            return
        if not exhausted.isdisjoint(fact.tail for fact in hidden):
            continue
        if any(fact.relation == "liked" for fact in hidden):
            yielded += 1
            if settings.max_context is not None:
                earlier = earlier[max(0, len(earlier) - settings.max_context) :]
            for fact in (*earlier, *hidden):
                entered[fact.tail] += 1
                if entered[fact.tail] == settings.max_groups_per_fact:
                    exhausted.add(fact.tail)
            yield graph.only(earlier), hidden
