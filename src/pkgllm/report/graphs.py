"""One person's graph, rules and edits as documents."""

from collections import Counter
from collections.abc import Sequence
from datetime import UTC

from pkgllm.graph.personal_graph import RELATIONS, PersonalGraph, Source
from pkgllm.graph.personal_record import Edit
from pkgllm.graph.rules import Rule
from pkgllm.report.document import Column, Document, Row, Table, plural, texts

_SOURCES = {
    "own_answer": "person",
    "partner_answer": "partner",
    "own_edit": "person, edit",
    "own_statement": "person, chat",
}


def graph_document(graph: PersonalGraph, rules: Sequence[Rule] = ()) -> Document:
    """Return the facts in order of time, with their source and document; then rules, if any."""
    count_by_relation = Counter(fact.relation for fact in graph.facts)
    counts = ", ".join(
        f"{count_by_relation[relation]} {relation}"
        for relation in RELATIONS
        if count_by_relation[relation]
    )
    rows = tuple(
        texts(
            fact.relation,
            fact.name,
            fact.tail,
            str(fact.time.session),
            _source(fact.provenance.source),
            fact.provenance.document,
        )
        for fact in graph.facts
    )
    facts = _table(("relation", "item", "id", "session", "said by", "document"), rows)
    section = (rules_document(rules),) if rules else ()
    return Document(f"{graph.owner}: {counts or 'no facts'}", (facts, *section))


def rules_document(rules: Sequence[Rule]) -> Document:
    """Return rules in the order in which they were made, with their source and document."""
    rows = tuple(
        texts(
            rule.id,
            rule.direction,
            rule.scope,
            rule.value,
            f"{rule.strength:g}",
            _source(rule.provenance.source),
            rule.provenance.document,
        )
        for rule in rules
    )
    headings = ("rule", "direction", "scope", "value", "strength", "said by", "document")
    return Document(numbered(len(rules), "rule"), (_table(headings, rows),))


def history_document(owner: str, edits: Sequence[tuple[Edit, Sequence[str]]]) -> Document:
    """Return edits in order, each with what it changed, one change a line."""
    rows = tuple(
        texts(
            str(edit.number),
            edit.time.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S"),
            edit.action,
            "\n".join(changes),
        )
        for edit, changes in edits
    )
    table = _table(("edit", "time", "action", "changes"), rows)
    return Document(f"{owner}: {numbered(len(edits), 'edit')}", (table,))


def numbered(count: int, noun: str) -> str:
    """Return a number of things in words.

    Example:
        >>> numbered(0, "rule"), numbered(1, "rule"), numbered(2, "rule")
        ('no rules', '1 rule', '2 rules')
    """
    return plural(count, noun) if count else f"no {noun}s"


def _table(headings: Sequence[str], rows: tuple[Row, ...]) -> Table:
    whole = ("document", "time")
    return Table("", tuple(Column(h, wrap=h not in whole) for h in headings), rows)


def _source(source: Source) -> str:
    """Return who or what a fact comes from; a corpus names its own kinds."""
    return _SOURCES.get(source, source.replace("_", " "))
