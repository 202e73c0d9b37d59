import json
from pathlib import Path

import pytest
import rdflib

from helpers.command_line import RunCommand
from pkgllm.graph.personal_graph import Fact, Moment, PersonalGraph, Provenance
from pkgllm.graph.rdf import read_record, write_graph
from pkgllm.shipped import domains_folder

SAID = Provenance("own_answer", "conversation/1")
FILMS = {
    "1": "Raiders of the Lost Ark (1981)",
    "2": "What Lies Beneath (2000)",
    "3": "Heat (1995)",
    "4": "Signs (2002) [4]",
    "5": "Signs (2002) [5]",
}
ME = "me.jsonld"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a graph in which one film is liked, and a catalogue."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    liked = Fact("liked", "1", FILMS["1"], Moment(0, 0), SAID)
    write_graph(PersonalGraph("me", (liked,)), tmp_path / ME)
    items = [{"id": film, "name": name} for film, name in FILMS.items()]
    (tmp_path / "cat.json").write_text(json.dumps({"items": items}))
    return tmp_path


def holds(path: str = ME) -> dict[str, str]:
    return {fact.name: fact.relation for fact in read_record(Path(path)).graph.facts}


def test_an_edit_is_told_written_and_can_be_taken_back(pkgllm: RunCommand, home: Path) -> None:
    done = pkgllm(
        "pkg", "dislike", ME, "raiders of the lost ark", "HEAT", "--catalogue", "cat.json"
    )
    assert done.code == 0, done.err
    assert done.out.splitlines() == [
        "disliked Raiders of the Lost Ark (1981) (before: liked Raiders of the Lost Ark (1981))",
        "disliked Heat (1995)",
        "edit 1; take it back with: pkgllm pkg undo me.jsonld",
    ]
    assert holds() == {FILMS["1"]: "disliked", FILMS["3"]: "disliked"}
    record = read_record(home / ME)
    assert {fact.provenance.source for fact in record.graph.facts} == {"own_edit"}
    assert record.edits[0].time.tzinfo is not None

    history = pkgllm("pkg", "history", ME).out
    assert "me: 1 edit" in history
    assert "dislike" in history
    assert "disliked Heat (1995)" in history

    done = pkgllm("pkg", "undo", ME)
    assert done.out.splitlines()[0] == "taken back: edit 1, dislike"
    assert holds() == {FILMS["1"]: "liked"}
    done = pkgllm("pkg", "undo", ME)
    assert (done.code, done.sentence) == (
        1,
        "pkgllm: me.jsonld: there is no edit to undo",
    )


def test_seen_adds_nothing_to_a_verdict(pkgllm: RunCommand, home: Path) -> None:
    before = (home / ME).read_bytes()
    done = pkgllm("pkg", "seen", ME, "Raiders of the Lost Ark (1981)")
    assert done.out == "me.jsonld: says so already, nothing is changed\n"
    assert (home / ME).read_bytes() == before


def test_forgotten_things_stay_in_the_history_and_out_of_an_export_without(
    pkgllm: RunCommand, home: Path
) -> None:
    done = pkgllm("pkg", "forget", ME, "Raiders of the Lost Ark")
    assert done.out.startswith("no more: liked Raiders of the Lost Ark (1981)\n")
    assert holds() == {}
    assert "Raiders" in (home / ME).read_text()
    assert pkgllm("pkg", "export", ME, "-o", "all.ttl").code == 0
    assert read_record(home / "all.ttl") == read_record(home / ME)
    assert (home / "all.ttl").stat().st_mode & 0o777 == 0o600
    done = pkgllm("pkg", "export", ME, "-o", "now.ttl", "--no-history")
    assert done.out == "now.ttl: no facts, no rules, no edits\n"
    assert "Raiders" not in (home / "now.ttl").read_text()
    assert rdflib.Graph().parse(home / "all.ttl")
    done = pkgllm("pkg", "export", ME, "-o", "now.ttl")
    assert (done.code, done.sentence) == (
        1,
        "pkgllm: now.ttl: exists already; choose another name",
    )


def test_a_new_graph_takes_things_that_no_catalogue_has(pkgllm: RunCommand, home: Path) -> None:
    assert pkgllm("pkg", "new", "own.ttl", "--owner", "Zoë").code == 0
    done = pkgllm("pkg", "like", "own.ttl", "My Film (2026)", "--id", "own-1")
    assert done.code == 0, done.err
    done = pkgllm("pkg", "dislike", "own.ttl", "my film")
    assert done.out.startswith("disliked My Film (2026) (before: liked My Film (2026))\n")
    assert holds("own.ttl") == {"My Film (2026)": "disliked"}
    done = pkgllm("pkg", "seen", "own.ttl", "Other (2026)", "--id", "own-1")
    assert "--id own-1: is the id of 'My Film (2026)', got the name 'Other (2026)'" in done.sentence
    assert pkgllm("pkg", "validate", "own.ttl").out == (
        "own.ttl: good, 1 fact, no rules, 2 edits\n"
    )


@pytest.mark.parametrize("ending", ["jsonld", "ttl"])
def test_a_graph_of_recipes_says_so(pkgllm: RunCommand, home: Path, ending: str) -> None:
    file, recipes = f"cook.{ending}", str(domains_folder() / "tomato_recipes.json")
    assert pkgllm("pkg", "new", file, "--owner", "cook").code == 0
    done = pkgllm("pkg", "like", file, "gazpacho", "--catalogue", recipes)
    assert done.out.startswith("liked Gazpacho\n")
    assert pkgllm("pkg", "dislike", file, "Gazpacho").code == 0
    assert pkgllm("pkg", "seen", file, "My Stew", "--id", "own-1", "--catalogue", recipes).code == 0
    assert pkgllm("pkg", "validate", file).out == f"{file}: good, 2 facts, no rules, 3 edits\n"
    assert pkgllm("pkg", "export", file, "-o", "out.jsonld").code == 0
    for name, form in ((file, "turtle" if ending == "ttl" else "json-ld"), ("out.jsonld", None)):
        parsed = rdflib.Graph().parse(home / name, format=form)
        items = set(parsed.objects(None, rdflib.URIRef("https://w3id.org/pkgllm/item")))
        assert len(items) == 2
        assert set(parsed.subjects(rdflib.RDF.type, rdflib.SDO.Recipe)) == items
        assert not set(parsed.subjects(rdflib.RDF.type, rdflib.SDO.Movie))


def test_rules_are_added_replaced_listed_and_removed(pkgllm: RunCommand, home: Path) -> None:
    done = pkgllm("pkg", "rules", "add", ME, "avoid", "genre", "Horror", "--strength", "0.5")
    assert done.out.splitlines()[0] == "avoid genre Horror (strength 0.5)"
    done = pkgllm("pkg", "rules", "add", ME, "prefer", "genre", "Horror")
    assert done.out.splitlines()[0] == (
        "prefer genre Horror (before: avoid genre Horror (strength 0.5))"
    )
    listed = pkgllm("pkg", "rules", "list", ME).out
    assert "1 rule" in listed
    assert "Horror" in listed
    assert "Horror" in pkgllm("pkg", "show", ME).out
    done = pkgllm("pkg", "rules", "remove", ME, "r1")
    assert done.sentence == "pkgllm: me.jsonld: there is no rule 'r1'; its rules are r2"
    assert pkgllm("pkg", "rules", "remove", ME, "r2").code == 0
    assert read_record(home / ME).rules == ()
    done = pkgllm("pkg", "rules", "add", ME, "avoid", "genre", "Horror", "--strength", "2")
    assert (done.code, "strength must be above 0 and at most 1, got 2.0" in done.sentence) == (
        2,
        True,
    )


@pytest.mark.parametrize(
    ("arguments", "code", "pieces"),
    [
        (
            ["like", ME, "Haet", "--catalogue", "cat.json"],
            1,
            ["no item is called 'Haet'; close are: Heat (1995)"],
        ),
        (
            ["like", ME, "Heat (1996)", "--catalogue", "cat.json"],
            1,
            ["no item is called 'Heat (1996)'; close are: Heat (1995)"],
        ),
        (
            ["like", ME, "signs", "--catalogue", "cat.json"],
            1,
            ["'signs' may be any of Signs (2002) [4], Signs (2002) [5]; give the whole name"],
        ),
        (["like", ME, "Heat"], 1, ["no item is called 'Heat'", "without --catalogue", "--id"]),
        (["forget", ME, "Heat"], 1, ["no item is called 'Heat'"]),
        (["like", "no.jsonld", "Heat"], 1, ["no.jsonld: no such file; make an empty graph with"]),
        (["like", ME, "a", "b", "--id", "7"], 2, ["--id goes with one ITEM, got 2"]),
        (
            ["like", ME, "Heat", "--catalogue", "cat.json", "-c", "quickstart.yaml"],
            2,
            ["--catalogue does not go with --config"],
        ),
        (["like", ME, "Heat", "--catalogue", ME], 1, ["me.jsonld: items must be a list"]),
        (["like", ME, "Heat", "--catalogue", "no.json"], 1, ["no.json: cannot be read"]),
        (["rules", "add", ME, "hate", "genre", "Horror"], 2, ["'hate' is not one of"]),
        (["new", ME, "--owner", "me"], 1, ["me.jsonld: exists already"]),
        (["export", ME, "-o", "me.txt"], 1, ["me.txt: a graph's file must end in"]),
    ],
)
def test_a_mistake_is_one_sentence_and_changes_nothing(
    pkgllm: RunCommand, home: Path, arguments: list[str], code: int, pieces: list[str]
) -> None:
    before = sorted(home.iterdir()), (home / ME).read_bytes()
    done = pkgllm("pkg", *arguments)
    assert (done.code, done.out) == (code, "")
    assert all(piece in done.sentence for piece in pieces), done.sentence
    assert (sorted(home.iterdir()), (home / ME).read_bytes()) == before


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"@context": {},\n', "me.jsonld:2: not JSON"),
        ('{"@context": "https://schema.org", "name": "x"}', "write the context out"),
        ('{"@context": {"@vocab": "https://x.org/"}, "name": "x"}', "one node of type"),
    ],
)
@pytest.mark.parametrize("command", ["like", "undo", "validate"])
def test_a_broken_or_foreign_file_is_named_with_its_reason_and_left_alone(
    pkgllm: RunCommand, home: Path, command: str, text: str, reason: str
) -> None:
    (home / ME).write_text(text)
    items = ["Heat", "--catalogue", "cat.json"] if command == "like" else []
    done = pkgllm("pkg", command, ME, *items)
    assert done.code == 1
    assert reason in done.err + done.out
    assert (home / ME).read_text() == text


def test_a_corpus_can_be_the_catalogue(pkgllm: RunCommand, home: Path) -> None:
    done = pkgllm("pkg", "like", ME, "no such film at all", "-c", "quickstart.yaml")
    assert done.code == 1
    assert "no item is called" in done.sentence
    assert "without --catalogue" not in done.sentence


def test_another_entry_of_a_film_is_the_film(pkgllm: RunCommand, home: Path) -> None:
    names = ["Tepid Pendulum (1977)", "Tepid Pendulum", "tepid pendulum 1977", "Heat (1995)"]
    items = [{"id": str(number), "name": name} for number, name in enumerate(names)]
    (home / "twins.json").write_text(json.dumps({"items": items}))
    pkgllm("pkg", "new", "twin.jsonld", "--owner", "me")
    catalogue = ("--catalogue", "twins.json")
    pkgllm("pkg", "like", "twin.jsonld", "TEPID PENDULUM", *catalogue)
    said = pkgllm("pkg", "dislike", "twin.jsonld", "tepid pendulum 1977", *catalogue).out
    assert "disliked Tepid Pendulum (before: liked Tepid Pendulum)" in said
    assert len(read_record(home / "twin.jsonld").graph.facts) == 1
