import io

from rich.console import Console

from pkgllm.graph.personal_graph import Fact, Moment, PersonalGraph, Provenance
from pkgllm.report.graphs import graph_table


def printed(graph: PersonalGraph) -> list[str]:
    written = io.StringIO()
    Console(file=written, width=140, force_terminal=False).print(graph_table(graph))
    return [line.rstrip() for line in written.getvalue().splitlines() if line.strip()]


def a_fact(relation: str, tail: str, name: str, session: int, source: str) -> Fact:
    said = Provenance(source, f"conversation/{session + 10}")  # type: ignore[arg-type]
    return Fact(relation, tail, name, Moment(session, 0), said)  # type: ignore[arg-type]


def test_facts_stand_in_order_of_time_with_who_said_so() -> None:
    graph = PersonalGraph(
        "p1",
        (
            a_fact("liked", "7", "Heat (1995)", 2, "partner_answer"),
            a_fact("seen", "9", "Ran (1985)", 0, "own_answer"),
            a_fact("liked", "8", "Alien (1979)", 1, "own_answer"),
        ),
    )
    title, heading, _, *rows = printed(graph)
    assert title == "p1: 2 liked, 1 seen"
    assert heading.split() == ["relation", "item", "id", "session", "said", "by", "document"]
    assert [" ".join(row.split()) for row in rows] == [
        "seen Ran (1985) 9 0 person conversation/10",
        "liked Alien (1979) 8 1 person conversation/11",
        "liked Heat (1995) 7 2 partner conversation/12",
    ]


def test_names_that_look_like_markup_are_shown_as_they_are() -> None:
    name, owner = "[bold]Brazil[/bold] [/] :smile: (1985) [17]", "[red]p1"
    graph = PersonalGraph(owner, (a_fact("liked", "[b]", name, 0, "own_answer"),))
    title, _, _, row = printed(graph)
    assert title == "[red]p1: 1 liked"
    assert name in row
    assert "[b]" in row


def test_an_empty_graph_says_so() -> None:
    title, *_ = printed(PersonalGraph("p1", ()))
    assert title == "p1: no facts"
