"""Recommendations to one person for the terminal."""

from collections.abc import Iterator, Mapping
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text


def recommendations_table(advice: Mapping[str, Any]) -> Table:
    """Return what is recommended, best first, with its reasons below where there are any.

    Args:
        advice: As made by ``Advice.as_json``.
    """
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    table.add_column("", justify="right")
    table.add_column("for you", overflow="fold")
    table.add_column("log-prob.", justify="right")
    for found in advice["recommendations"]:
        # Names come from outside and may hold what rich would read as markup.
        cell = Text(found["name"])
        for line in _reasons(found.get("why")):
            cell.append(f"\n  {line}", style="dim")
        table.add_row(str(found["rank"]), cell, f"{found['log_probability']:.2f}")
    return table


def _reasons(why: Mapping[str, Any] | None) -> Iterator[str]:
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


def adapted_lines(advice: Mapping[str, Any]) -> Iterator[str]:
    """Yield how the graph that the model read differs from the person's own, a fact a line."""
    for rule in advice["rules"]:
        yield (
            f"rule {rule['id']}: {rule['direction']} {rule['scope']} {rule['value']}, "
            f"strength {rule['strength']:g}"
        )
    if not advice["changes"]:
        yield "no fact is changed"
    for change in advice["changes"]:
        yield (
            f"{change['name']}: {change['said']} -> {change['adapted'] or 'left out'} "
            f"({change['rule']})"
        )
