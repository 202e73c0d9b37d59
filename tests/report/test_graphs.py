from datetime import datetime, timedelta, timezone

from helpers.printed import lines_of
from pkgllm.graph.personal_graph import Fact, Moment, PersonalGraph, Provenance
from pkgllm.graph.personal_record import Edit
from pkgllm.graph.rules import Rule
from pkgllm.report.graphs import graph_document, history_document, rules_document


def shown(graph: PersonalGraph, *rules: Rule) -> list[str]:
    return lines_of(graph_document(graph, rules))


def a_fact(relation: str, tail: str, name: str, session: int, source: str) -> Fact:
    said = Provenance(source, f"conversation/{session + 10}")
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
    title, heading, _, *rows = shown(graph)
    assert title == "p1: 2 liked, 1 seen"
    assert heading.split() == ["relation", "item", "id", "session", "said", "by", "document"]
    assert rows == [
        "seen Ran (1985) 9 0 person conversation/10",
        "liked Alien (1979) 8 1 person conversation/11",
        "liked Heat (1995) 7 2 partner conversation/12",
    ]


def test_names_that_look_like_markup_are_shown_as_they_are() -> None:
    name, owner = "[bold]Brazil[/bold] [/] :smile: (1985) [17]", "[red]p1"
    graph = PersonalGraph(owner, (a_fact("liked", "[b]", name, 0, "own_answer"),))
    title, _, _, row = shown(graph)
    assert title == "[red]p1: 1 liked"
    assert name in row
    assert "[b]" in row


def test_an_empty_graph_says_so() -> None:
    title, *_ = shown(PersonalGraph("p1", ()))
    assert title == "p1: no facts"


SAID = Provenance("own_edit", "edit/1")


def test_rules_are_listed_with_their_strength_and_source() -> None:
    rules = (
        Rule("r1", "genre", "[bold]Horror", "avoid", 0.5, SAID),
        Rule("r2", "person", "Ann Lee", "prefer", 1.0, SAID),
    )
    title, _, _, *rows = lines_of(rules_document(rules))
    assert title == "2 rules"
    assert rows == [
        "r1 avoid genre [bold]Horror 0.5 person, edit edit/1",
        "r2 prefer person Ann Lee 1 person, edit edit/1",
    ]
    assert lines_of(rules_document(()))[0] == "no rules"


def test_history_gives_times_in_utc_and_one_change_a_line() -> None:
    time = datetime(2026, 5, 1, 14, 30, tzinfo=timezone(timedelta(hours=2)))
    document = history_document("me", [(Edit(1, "like", time), ["liked A", "liked B"])])
    title, _, _, *rows = lines_of(document)
    assert title == "me: 1 edit"
    assert rows == ["1 2026-05-01 12:30:00 like liked A", "liked B"]
