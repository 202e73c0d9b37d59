import json
from pathlib import Path
from typing import Any

import pytest

from helpers.command_line import FILMS, RUN, Refuse, RunCommand
from helpers.tiny_base import write_tiny_base
from pkgllm.corpora.domains import read_domain
from pkgllm.graph.personal_graph import Fact, Moment, PersonalGraph, Provenance, Relation
from pkgllm.graph.rdf import write_graph
from pkgllm.shipped import domains_folder

ASK = ("recommend", "--adapter", str(RUN), "--pkg", "me.jsonld")
VIDEOS = ("--catalogue", str(domains_folder() / "cat_videos.json"))


@pytest.fixture
def me(workplace: Path) -> PersonalGraph:
    """Somebody of the run's own world, in ``me.jsonld``."""
    said: dict[str, Relation] = {"1": "liked", "2": "liked", "3": "disliked", "4": "seen"}
    facts = (
        Fact(relation, film, FILMS[film], Moment(0, int(film)), Provenance("own_answer", "c/1"))
        for film, relation in said.items()
    )
    graph = PersonalGraph("me", tuple(facts))
    write_graph(graph, workplace / "me.jsonld")
    return graph


@pytest.fixture
def cat_lover(workplace: Path) -> PersonalGraph:
    """Somebody of the shipped videos, in ``me.jsonld``."""
    graph = read_domain("cat_videos").people[0].graph
    write_graph(graph, workplace / "me.jsonld")
    return graph


def answer(pkgllm: RunCommand, *arguments: str) -> dict[str, Any]:
    done = pkgllm(*ASK, *arguments, "--json")
    assert done.code == 0, done.err
    shown: dict[str, Any] = json.loads(done.out)
    return shown


@pytest.mark.slow
def test_recommendations_as_json_and_as_a_table(pkgllm: RunCommand, me: PersonalGraph) -> None:
    asked = ("--request", "an old one", "--to-year", "1965", "--top", "4", "--why")
    shown = answer(pkgllm, *asked)
    assert [one["rank"] for one in shown["recommendations"]] == [1, 2, 3, 4]
    ids = {one["id"] for one in shown["recommendations"]}
    assert ids <= {str(film) for film in range(5, 16)}
    scores = [one["log_probability"] for one in shown["recommendations"]]
    assert scores == sorted(scores, reverse=True)
    for one in shown["recommendations"]:
        assert {fact["id"] for fact in one["why"]["facts"]} <= me.tails
    table = pkgllm(*ASK, *asked).out
    assert all(one["name"] in table for one in shown["recommendations"])
    assert "% liked Film" in table or "% seen Film" in table or "no fact of yours" in table


def test_a_domain_of_its_own_with_scopes_of_its_own(
    pkgllm: RunCommand, cat_lover: PersonalGraph
) -> None:
    shown = answer(pkgllm, *VIDEOS, "--only", "length=short", "--not", "animal=cat", "--top", "99")
    videos = read_domain("cat_videos").catalogue
    left = {
        item.id
        for item in videos
        if item.facts["length"] == ("short",) and item.facts["animal"] != ("cat",)
    }
    assert {one["id"] for one in shown["recommendations"]} == left - cat_lover.tails


@pytest.mark.slow
def test_leaving_a_bubble_shows_what_the_adapted_graph_says(
    pkgllm: RunCommand, cat_lover: PersonalGraph, workplace: Path
) -> None:
    shown = answer(pkgllm, *VIDEOS, "--avoid", "cats")
    assert [rule["value"] for rule in shown["rules"]] == ["cat"]
    changed = {change["id"]: change["adapted"] for change in shown["changes"]}
    inside = dict.fromkeys(("v02", "v03", "v04", "v05", "v06"))
    outside = {fact.tail: "liked" for fact in cat_lover.with_relation("seen")}
    assert changed == inside | outside
    own, wish = (
        answer(pkgllm, *VIDEOS, "--avoid", "cats", "--strategy", strategy)["recommendations"]
        for strategy in ("none", "prompt")
    )
    assert own == answer(pkgllm, *VIDEOS)["recommendations"]
    scores = [[one["log_probability"] for one in of] for of in (own, wish)]
    assert scores[0] != scores[1]
    (workplace / "rules.json").write_text(
        '{"rules": [{"value": "cats", "strength": 0.5}, {"scope": "theme", "value": "music",'
        ' "direction": "prefer"}]}'
    )
    by_rules = answer(pkgllm, *VIDEOS, "--rules", "rules.json")
    assert {change["id"]: change["adapted"] for change in by_rules["changes"]}["v06"] == "disliked"
    done = pkgllm(*ASK, *VIDEOS, "--leave-bubble", "--show-adapted")
    assert "your bubble: animal cat, 5 of 6 likes (3.3 times" in done.out
    assert "Tomcat Drums on Pots: liked -> left out (asked-1)" in done.out
    # The person's own graph stays as it is.
    assert answer(pkgllm, *VIDEOS)["recommendations"] == own


def test_the_rules_of_the_graph_are_followed(pkgllm: RunCommand, cat_lover: PersonalGraph) -> None:
    for wish in (("animal", "cat"), ("genre", "horror")):
        assert pkgllm("pkg", "rules", "add", "me.jsonld", "avoid", *wish).code == 0
    shown = answer(pkgllm, *VIDEOS)
    assert [(rule["scope"], rule["value"]) for rule in shown["rules"]] == [("animal", "cat")]
    assert {change["adapted"] for change in shown["changes"]} == {None, "liked"}
    assert "(avoid genre horror) is about nothing in this catalogue" in shown["notes"][0]


@pytest.mark.slow
def test_the_model_writes_titles_itself_where_there_is_no_catalogue(
    pkgllm: RunCommand, me: PersonalGraph, workplace: Path
) -> None:
    # Neither dialogues nor films are needed any more.
    (workplace / "data").rename(workplace / "gone")
    shown = answer(pkgllm, "--free-text", "--genre", "comedy", "--seed", "3")
    assert shown["recommendations"]
    assert shown["notes"] == [
        "The model generated these titles; whether they exist is not checked.",
        "Without a catalogue only years are checked; the model read the others.",
    ]
    names = {fact.name.casefold() for fact in me.facts}
    assert not {one["name"].casefold() for one in shown["recommendations"]} & names


def test_a_graph_larger_than_the_prompt_is_told(
    pkgllm: RunCommand, workplace: Path, me: PersonalGraph
) -> None:
    facts = [
        Fact("seen", f"x{n}", f"Unknown Film {n}", Moment(1, n), Provenance("own_answer", "c/2"))
        for n in range(60)
    ]
    write_graph(me.only([*me.facts, *facts]), workplace / "me.jsonld")
    shown = answer(pkgllm)
    assert shown["facts_left_out"] > 0
    held = 64 - shown["facts_left_out"]
    assert shown["notes"][0].startswith(f"The prompt has {held} of 64 facts")
    assert shown["notes"][1].startswith("The items of 60 of 64 facts are not in the catalogue")


def test_an_adapter_of_another_base_model_names_both(
    refuse: Refuse, me: PersonalGraph, workplace: Path
) -> None:
    write_tiny_base(workplace / "other-base", seed=5)
    sentence = refuse(*ASK, "--base-model", "other-base")
    assert "base model other-base is not the one the run was trained on" in sentence
    assert "tiny-base0 (the weights differ)" in sentence


@pytest.mark.parametrize(
    ("arguments", "code", "pieces"),
    [
        (("--from-year", "1990", "--to-year", "1960"), 2, ("from the first to the last",)),
        (("--from-year", "2050"), 1, ("nothing is left to recommend", "0 meet the constraints")),
        (("--genre", "comedy"), 2, ("scope 'genre': the catalogue must have it",)),
        (("--only", "genre"), 2, ("--only genre: must be SCOPE=VALUE",)),
        (("--avoid", "cats"), 1, ("'cats': nothing in the catalogue of 30 items",)),
        (("--avoid", "film"), 1, ("asked-1 (franchise Film) avoid all 26 items", "narrow them")),
        (("--leave-bubble",), 1, ("no bubble is found", "--avoid")),
        (("--rules", "none.json"), 1, ("none.json: cannot be read",)),
        (("--rules", "small.yaml"), 1, ("small.yaml:1: not JSON",)),
        (("--catalogue", "me.jsonld"), 1, ("me.jsonld: items must be a list",)),
        ((*VIDEOS, "--not", "animal=cta"), 1, ("no item of the catalogue", "did you mean cat?")),
    ],
)
def test_what_cannot_be_answered(
    refuse: Refuse,
    me: PersonalGraph,
    arguments: tuple[str, ...],
    code: int,
    pieces: tuple[str, ...],
) -> None:
    sentence = refuse(*ASK, *arguments, code=code)
    assert all(piece in sentence for piece in pieces), sentence


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rules", "pieces"),
    [
        ("[]", "rules must be one JSON object"),
        ("{}", "rules must be a list"),
        ('{"rules": ["cats"]}', "rule 1: must be an object with a text"),
        ('{"rules": [{"value": "1950s", "strength": 2}]}', "strength must be above 0"),
        ('{"rules": [{"value": "1950s", "direction": "hate"}]}', "direction must be one of"),
        ('{"rules": [{"value": "1950s", "strength": "high"}]}', "strength must be a number"),
    ],
)
def test_rules_that_are_none(
    refuse: Refuse, me: PersonalGraph, workplace: Path, rules: str, pieces: str
) -> None:
    (workplace / "rules.json").write_text(rules)
    sentence = refuse(*ASK, "--rules", "rules.json")
    assert pieces in sentence
    assert "rules.json" in sentence


def test_a_broken_graph_and_a_run_that_is_none(refuse: Refuse, me: PersonalGraph) -> None:
    Path("me.jsonld").write_text(Path("me.jsonld").read_text()[:-30])
    assert "me.jsonld:" in refuse(*ASK)
    assert "not JSON" in refuse(*ASK)
    sentence = refuse("recommend", "--adapter", "data", "--pkg", "me.jsonld")
    assert "me.jsonld" in sentence or "run folder data" in sentence
