"""One person's graph, rules and edits as tables for the terminal."""

from collections import Counter
from collections.abc import Sequence
from datetime import UTC

from rich import box
from rich.table import Table
from rich.text import Text

from pkgllm.graph.personal_graph import RELATIONS, PersonalGraph
from pkgllm.graph.personal_record import Edit
from pkgllm.graph.rules import Rule

_SAID_BY = {
    "own_answer": "person",
    "partner_answer": "partner",
    "own_edit": "person, edit",
    "own_statement": "person, chat",
}


def graph_table(graph: PersonalGraph) -> Table:
    """Return the facts in order of time, with who said so and where."""
    count_by_relation = Counter(fact.relation for fact in graph.facts)
    counted = ", ".join(
        f"{count_by_relation[relation]} {relation}"
        for relation in RELATIONS
        if count_by_relation[relation]
    )
    headings = ("relation", "item", "id", "session", "said by", "document")
    table = _table(f"{graph.owner}: {counted or 'no facts'}", headings)
    for fact in graph.facts:
        cells = (
            fact.relation,
            fact.name,
            fact.tail,
            str(fact.time.session),
            _SAID_BY[fact.provenance.source],
            fact.provenance.document,
        )
        # Names come from outside and may hold what rich would read as markup.
        table.add_row(*(Text(cell) for cell in cells))
    return table


def numbered(count: int, noun: str) -> str:
    """Return a number of things in words.

    Example:
        >>> numbered(0, "rule"), numbered(1, "rule"), numbered(2, "rule")
        ('no rules', '1 rule', '2 rules')
    """
    return f"{count or 'no'} {noun}{'' if count == 1 else 's'}"


def rules_table(rules: Sequence[Rule]) -> Table:
    """Return rules in the order in which they were made, with who said so and where."""
    headings = ("rule", "direction", "scope", "value", "strength", "said by", "document")
    table = _table(numbered(len(rules), "rule"), headings)
    for rule in rules:
        cells = (
            rule.id,
            rule.direction,
            rule.scope,
            rule.value,
            f"{rule.strength:g}",
            _SAID_BY[rule.provenance.source],
            rule.provenance.document,
        )
        table.add_row(*(Text(cell) for cell in cells))
    return table


def history_table(owner: str, lines: Sequence[tuple[Edit, Sequence[str]]]) -> Table:
    """Return edits in order, each with what it changed, one change a line."""
    table = _table(
        f"{owner}: {numbered(len(lines), 'edit')}", ("edit", "time", "action", "changes")
    )
    for edit, changes in lines:
        time = edit.time.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")
        cells = (str(edit.number), time, edit.action, "\n".join(changes))
        table.add_row(*(Text(cell) for cell in cells))
    return table


def _table(title: str, headings: Sequence[str]) -> Table:
    table = Table(
        title=Text(title),
        title_justify="left",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        padding=(0, 1, 0, 0),
    )
    for heading in headings:
        table.add_column(heading, overflow="fold", no_wrap=heading in ("document", "time"))
    return table
