"""Which facts of a client's training graph are hidden together, and which come before them."""

from collections import Counter
from collections.abc import Iterator

from pkgllm.graph.personal_graph import Fact, PersonalGraph
from pkgllm.prompts.settings import GroupSettings


def hidden_windows(
    graph: PersonalGraph, settings: GroupSettings, *, max_groups_per_fact: int | None = None
) -> Iterator[tuple[PersonalGraph, tuple[Fact, ...]]]:
    """Yield (context, hidden facts) pairs, the latest first.

    The hidden facts are consecutive liked or disliked ones with at least one liked; the context is
    what the graph holds strictly before them. A fact that has entered as many windows as it may is
    left out of later contexts, and a window that hides it is skipped.

    Args:
        graph: A client's training graph.
        settings: How it is cut.
        max_groups_per_fact: Windows that a fact may enter, hidden or in the context; any number
            when None.

    Example:
        >>> from pkgllm.graph.personal_graph import Moment, Provenance
        >>> said = Provenance("own_answer", "conversation/1")
        >>> facts = [Fact("liked", str(n), f"Film {n}", Moment(n, 0), said) for n in range(6)]
        >>> graph = PersonalGraph("p1", tuple(facts))
        >>> def show(max_groups_per_fact=None, **settings):
        ...     settings = GroupSettings(hidden_facts=2, stride=2, **settings)
        ...     windows = hidden_windows(graph, settings, max_groups_per_fact=max_groups_per_fact)
        ...     for context, hidden in windows:
        ...         print([fact.tail for fact in context.facts], [fact.tail for fact in hidden])
        >>> show()
        ['0', '1', '2', '3'] ['4', '5']
        ['0', '1'] ['2', '3']
        >>> show(1, min_context=0)
        ['0', '1', '2', '3'] ['4', '5']
        >>> show(2, min_context=0, max_context=1)
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
                if entered[fact.tail] == max_groups_per_fact:
                    exhausted.add(fact.tail)
            yield graph.only(earlier), hidden
