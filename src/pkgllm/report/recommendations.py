"""Recommendations to one person as a document."""

from collections.abc import Iterator, Mapping
from typing import Any

from pkgllm.report.document import Cell, Column, Document, Paragraph, Table


def recommendations_document(
    response: Mapping[str, Any], *, with_adapted: bool = False
) -> Document:
    """Return what is recommended, best first, with its reasons below where there are any."""
    lines = []
    if bubble := response["bubble"]:
        lines.append(
            f"your bubble: {bubble['scope']} {bubble['value']}, {bubble['support']} of "
            f"{bubble['likes']} likes ({bubble['lift']:.1f} times its share of the catalogue)"
        )
    if with_adapted:
        lines += _adapted(response)
    rows = tuple(
        (
            Cell(str(item["rank"])),
            Cell(item["name"], details=tuple(reasons_in_words(item.get("why")))),
            Cell(f"{item['log_probability']:.2f}", item["log_probability"]),
        )
        for item in response["recommendations"]
    )
    headings = (
        Column("", right=True),
        Column("for you", wrap=True),
        Column("log-prob.", right=True),
    )
    table = Table("", headings, rows)
    above = (Paragraph("\n".join(lines)),) if lines else ()
    return Document("", (*above, table), tuple(response["notes"]))


def reasons_in_words(why: Mapping[str, Any] | None) -> Iterator[str]:
    """Yield one line for each fact and path of a recommendation in JSON."""
    if why is None:
        return
    if not why["facts"]:
        yield "no fact of yours carries it"
    for fact in why["facts"]:
        yield (
            f"{100 * fact['share']:.0f} % {fact['relation']} {fact['name']} "
            f"(+{fact['change']:.2f} nats)"
        )
    for path in why["paths"]:
        same = path["relation"] == path["other_relation"]
        how = path["relation"] if same else f"{path['relation']}, here {path['other_relation']}"
        yield f"{path['name']}: same {how}: {path['value']}"


def _adapted(response: Mapping[str, Any]) -> Iterator[str]:
    for rule in response["rules"]:
        yield (
            f"rule {rule['id']}: {rule['direction']} {rule['scope']} {rule['value']}, "
            f"strength {rule['strength']:g}"
        )
    if not response["changes"]:
        yield "no fact is changed"
    for change in response["changes"]:
        yield (
            f"{change['name']}: {change['said']} -> {change['adapted'] or 'left out'} "
            f"({change['rule']})"
        )
