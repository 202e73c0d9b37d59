"""The published example of a person who talks, end to end, with facts about films as a fixture."""

import io
import json
import sys
from pathlib import Path

import pytest

from helpers.command_line import RUN, RunCommand
from pkgllm.graph.personal_graph import Fact, Moment, PersonalGraph, Provenance
from pkgllm.graph.rdf import read_record, write_graph

RAIDERS, BENEATH, HEAT = "Raiders of the Lost Ark (1981)", "What Lies Beneath (2000)", "Heat (1995)"
FORD = "Harrison Ford"
ITEMS = [
    {"id": "1", "name": RAIDERS, "facts": {"star": [FORD], "genre": ["action"]}},
    {"id": "2", "name": BENEATH, "facts": {"star": [FORD], "genre": ["thriller"]}},
    {"id": "3", "name": HEAT, "facts": {"star": ["Al Pacino"], "genre": ["crime"]}},
]
CHAT = ("chat", "--pkg", "me.jsonld", "--adapter", str(RUN), "--catalogue", "films.json")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def home(workplace: Path) -> Path:
    """A finished run, the facts about three films, and a graph with one of them."""
    (workplace / "films.json").write_text(json.dumps({"items": ITEMS}))
    liked = Fact("liked", "1", RAIDERS, Moment(0, 0), Provenance("own_answer", "conversation/1"))
    write_graph(PersonalGraph("me", (liked,)), workplace / "me.jsonld")
    return workplace


def offered(out: str) -> list[str]:
    _, _, answer = out.rpartition("for you:\n")
    return [line.split(". ", 1)[1] for line in answer.splitlines()]


def facts() -> dict[str, str]:
    return {fact.name: fact.relation for fact in read_record(Path("me.jsonld")).graph.facts}


def test_a_wish_is_written_its_film_offered_accepted_and_added(
    pkgllm: RunCommand, home: Path
) -> None:
    done = pkgllm(*CHAT, "--message", f"I enjoy {FORD}", "--yes")
    assert done.code == 0, done.err
    assert done.out.splitlines()[:3] == [
        "to be written to your graph:",
        f"  prefer person {FORD}",
        "written as edit 1; take it back with: pkgllm pkg undo me.jsonld",
    ]
    assert set(offered(done.out)) == {BENEATH, HEAT}

    done = pkgllm(*CHAT, "--message", "I watched What Lies Beneath and loved it", "--yes")
    assert f"  liked {BENEATH}" in done.out.splitlines()
    assert offered(done.out) == [HEAT]

    assert facts() == {RAIDERS: "liked", BENEATH: "liked"}
    record = read_record(home / "me.jsonld")
    (rule,) = record.rules
    assert (rule.direction, rule.scope, rule.value) == ("prefer", "person", FORD)
    new = record.graph.facts[-1]
    assert new.provenance.source == rule.provenance.source == "own_statement"
    assert new.provenance.document.startswith("chat/")
    assert new.time > Moment(0, 0)


def test_without_a_terminal_nothing_is_written_unless_all_is_accepted(
    pkgllm: RunCommand, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (home / "me.jsonld").read_bytes()
    monkeypatch.setattr("sys.stdin", io.StringIO())
    done = pkgllm(*CHAT, "-m", "Heat was boring")
    assert done.code == 0
    assert f"  disliked {HEAT}" in done.out
    assert "not written: there is nobody to ask here; --yes writes without asking" in done.out
    assert (home / "me.jsonld").read_bytes() == before


def test_in_a_dialogue_each_line_is_asked_for_and_the_offer_is_remembered(
    pkgllm: RunCommand, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal(f"I hate {FORD}\nn\nThe first one is great\ny\n"))
    done = pkgllm(*CHAT)
    assert done.code == 0, done.err
    assert f"  avoid person {FORD}" in done.out
    assert "not written\n" in done.out
    first = done.out.split("1. ")[1].splitlines()[0]
    assert facts() == {RAIDERS: "liked", first: "liked"}
    assert read_record(home / "me.jsonld").rules == ()


def test_a_message_that_says_nothing_is_answered_all_the_same(
    pkgllm: RunCommand, home: Path
) -> None:
    before = (home / "me.jsonld").read_bytes()
    done = pkgllm(*CHAT, "-m", "Hello! Something for tonight, please", "--yes", "--top", "1")
    assert done.out.startswith("for you:\n")
    assert len(offered(done.out)) == 1
    assert (home / "me.jsonld").read_bytes() == before


def test_what_the_base_model_reads_is_asked(
    pkgllm: RunCommand, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = (*CHAT, "--extractor", "model")
    done = pkgllm(*reads, "-m", "I loved Heat (1995)", "--yes")
    assert done.code == 0, done.err
    assert f"not written: it is not certain what you think of {HEAT}" in done.out
    assert HEAT not in facts()
    monkeypatch.setattr(sys, "stdin", Terminal("I loved Heat (1995)\nliked\ny\n"))
    assert pkgllm(*reads).code == 0
    assert facts()[HEAT] == "liked"


@pytest.mark.parametrize(
    ("said", "answers", "relation"),
    [
        ("i loved heat", "\ny\n", "liked"),
        ("i loved heat", "nothing\n", None),
        ("I want to see Heat (1995)", "unseen\ny\n", "unseen"),
    ],
)
def test_what_is_not_certain_is_asked_on_a_terminal(
    pkgllm: RunCommand,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    said: str,
    answers: str,
    relation: str | None,
) -> None:
    done = pkgllm(*CHAT, "-m", said, "--yes")
    assert "not written: " in done.out
    assert HEAT not in facts()
    monkeypatch.setattr(sys, "stdin", Terminal(f"{said}\n{answers}"))
    done = pkgllm(*CHAT)
    assert done.code == 0, done.err
    assert facts().get(HEAT) == relation


def test_a_verdict_without_a_known_title_is_said_to_be_lost(pkgllm: RunCommand, home: Path) -> None:
    done = pkgllm(*CHAT, "-m", "I loved Citizen Marmalade", "--yes")
    assert done.out.startswith("not written: no title that I know is in your message")


def test_a_wish_constrains_and_why_gives_reasons(
    pkgllm: RunCommand, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = "why?\nsomething thrilling from after 1999\nwhy the first one?\nhelp\n"
    monkeypatch.setattr(sys, "stdin", io.StringIO(lines))
    done = pkgllm(*CHAT, "--yes")
    assert done.code == 0, done.err
    first, wish, _ = done.out.split("\n", 2)
    assert first == "nothing was recommended yet; ask for something first"
    assert wish == "as you wish: Only genre thriller. From 2000."
    assert done.out.count(BENEATH) == 2
    assert f"Raiders of the Lost Ark (1981): same star: {FORD}" in done.out
    assert "Tell me what you think of films" in done.out
    assert facts() == {RAIDERS: "liked"}


def test_a_wish_that_nothing_fulfils_ends_no_dialogue(
    pkgllm: RunCommand, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        sys, "stdin", io.StringIO("I loved Heat and What Lies Beneath\n\nStill there?\n")
    )
    done = pkgllm(*CHAT, "--yes")
    assert done.code == 0, done.err
    assert done.out.count("nothing is left to recommend") == 2


@pytest.mark.parametrize(
    ("change", "code", "piece"),
    [
        (["--pkg", "no.jsonld"], 1, "no.jsonld: cannot be read"),
        (["--adapter", "runs/none"], 1, "run folder runs/none: no such folder"),
        (["--catalogue", "me.jsonld"], 1, "me.jsonld: items must be a list"),
        (["--extractor", "guess"], 2, "'guess' is not one of"),
    ],
)
def test_a_mistake_is_one_sentence(
    pkgllm: RunCommand, home: Path, change: list[str], code: int, piece: str
) -> None:
    before = (home / "me.jsonld").read_bytes()
    done = pkgllm(*CHAT, "-m", "I loved Heat", "--yes", *change)
    assert (done.code, done.out) == (code, "")
    assert piece in done.sentence
    assert (home / "me.jsonld").read_bytes() == before


def test_a_broken_graph_is_left_alone(pkgllm: RunCommand, home: Path) -> None:
    (home / "me.jsonld").write_text('{"facts": [\n')
    done = pkgllm(*CHAT, "-m", "I loved Heat", "--yes")
    assert done.code == 1
    assert "me.jsonld:2: not JSON" in done.sentence
    assert (home / "me.jsonld").read_text() == '{"facts": [\n'


def test_recommend_follows_the_rules_of_the_graph(pkgllm: RunCommand, home: Path) -> None:
    assert pkgllm("pkg", "rules", "add", "me.jsonld", "avoid", "genre", "action").code == 0
    done = pkgllm("recommend", *CHAT[1:], "--show-adapted")
    assert done.code == 0, done.err
    assert "rule r1: avoid genre action, strength 1" in done.out
    assert f"{RAIDERS}: liked -> " in done.out
