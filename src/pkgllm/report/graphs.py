"""One person's graph as a table for the terminal."""

from collections import Counter

from rich import box
from rich.table import Table
from rich.text import Text

from pkgllm.graph.personal_graph import RELATIONS, PersonalGraph

_SAID_BY = {"own_answer": "person", "partner_answer": "partner"}


def graph_table(graph: PersonalGraph) -> Table:
    """Return the facts in order of time, with who said so and where."""
    count_by_relation = Counter(fact.relation for fact in graph.facts)
    counted = ", ".join(
        f"{count_by_relation[relation]} {relation}"
        for relation in RELATIONS
        if count_by_relation[relation]
    )
    table = Table(
        title=Text(f"{graph.owner}: {counted or 'no facts'}"),
        title_justify="left",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        padding=(0, 1, 0, 0),
    )
    for heading in ("relation", "item", "id", "session", "said by", "document"):
        table.add_column(heading, overflow="fold", no_wrap=heading == "document")
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
