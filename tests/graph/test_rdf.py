import json
import re
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import rdflib
from hypothesis import example, given
from hypothesis import strategies as st
from rdflib.compare import isomorphic

from helpers.rdf_texts import from_jsonld, from_turtle, record_from_jsonld
from pkgllm.errors import DataError, RunError
from pkgllm.graph import vocabulary
from pkgllm.graph.personal_graph import (
    RELATIONS,
    SOURCES,
    Fact,
    Moment,
    PersonalGraph,
    Provenance,
)
from pkgllm.graph.rdf import (
    read_graph,
    to_jsonld,
    to_turtle,
    write_graph,
)

texts = st.text(max_size=12)
counts = st.integers(0, 10**9)
facts = st.builds(
    Fact,
    st.sampled_from(RELATIONS),
    texts,
    texts,
    st.builds(Moment, counts, counts),
    st.builds(Provenance, st.sampled_from((*SOURCES, "rating")), texts),
    st.sampled_from(["Movie", "Recipe", "VideoObject", "3DModel"]),
)
graphs = st.builds(
    PersonalGraph, texts, st.lists(facts, max_size=5, unique_by=lambda fact: fact.tail).map(tuple)
)


def named(name: str, *, tail: str = "7", document: str = "conversation/1") -> PersonalGraph:
    said = Provenance("partner_answer", document)
    return PersonalGraph("p1", (Fact("liked", tail, name, Moment(0, 2), said),))


SMALL = named("Amber Kettle (1991)")
HARD = (
    named("".join(map(chr, range(160)))),
    named('ends in quotes """'),
    named("ends in a backslash \\"),
    named("\r\n\u2028\x85\ufeff"),
    named("", tail="", document=""),
    named("dots", tail="..", document="conversation/../.."),
    named("emoji \U0001f3ac", tail="a b%20<>", document="?#[]"),
)


@pytest.mark.parametrize("graph", HARD)
def test_awkward_text_is_read_back_equal_from_text_and_files(
    graph: PersonalGraph, tmp_path: Path
) -> None:
    assert from_jsonld(to_jsonld(graph), where="x") == graph
    assert from_turtle(to_turtle(graph), where="x") == graph
    for name in ("graph.jsonld", "graph.json", "graph.TTL"):
        write_graph(graph, tmp_path / name)
        assert read_graph(tmp_path / name) == graph


@pytest.mark.slow
@given(graphs)
def test_jsonld_is_read_back_equal(graph: PersonalGraph) -> None:
    assert from_jsonld(to_jsonld(graph), where="x") == graph


@pytest.mark.slow
@given(graphs)
def test_turtle_is_read_back_equal(graph: PersonalGraph) -> None:
    assert from_turtle(to_turtle(graph), where="x") == graph


@pytest.mark.slow
@given(graphs)
def test_jsonld_and_turtle_hold_the_same_triples(graph: PersonalGraph) -> None:
    by_jsonld = rdflib.Graph().parse(data=to_jsonld(graph), format="json-ld")
    by_turtle = rdflib.Graph().parse(data=to_turtle(graph), format="turtle")
    assert isomorphic(by_jsonld, by_turtle)
    # type of the owner; per fact: link, type, 6 properties; per item: type, name, identifier
    assert len(by_turtle) == 1 + (1 + 1 + 6 + 3) * len(graph.facts)


@given(texts)
@example("..")
def test_iris_are_ascii_and_name_their_id(text: str) -> None:
    for forth, back in (
        (vocabulary.OWNERS.iri, vocabulary.OWNERS.id),
        (vocabulary.ITEMS.iri, vocabulary.ITEMS.id),
        (vocabulary.DOCUMENTS.iri, vocabulary.DOCUMENTS.id),
    ):
        iri = forth(text)
        assert re.fullmatch(r"urn:pkgllm:[a-z]+:[A-Za-z0-9%._~-]*", iri)
        assert back(iri) == text


@given(texts, texts, texts, texts)
def test_facts_of_different_owners_or_items_have_different_iris(
    a: str, b: str, c: str, d: str
) -> None:
    same = vocabulary.FACTS.iri(a, b) == vocabulary.FACTS.iri(c, d)
    assert same == ((a, b) == (c, d))


def test_an_iri_of_another_kind_is_not_an_items() -> None:
    with pytest.raises(ValueError, match=r"urn:pkgllm:item: is needed, got urn:pkgllm:owner:7"):
        vocabulary.ITEMS.id(vocabulary.OWNERS.iri("7"))


def test_the_document_is_nested_and_in_order_of_time() -> None:
    said = Provenance("own_answer", "conversation/1")
    late = Fact("seen", "1", "Later", Moment(1, 0), said)
    early = Fact("liked", "2", "Earlier", Moment(0, 0), said)
    document = json.loads(to_jsonld(PersonalGraph("p1", (late, early))))
    assert [fact["item"]["name"] for fact in document["facts"]] == ["Earlier", "Later"]
    assert document["facts"][0]["relation"] == "liked"
    assert document["facts"][0]["source"] == "own_answer"


def test_turtle_is_the_same_text_every_time() -> None:
    assert to_turtle(SMALL) == to_turtle(SMALL.only(SMALL.facts))
    assert "pkg:relation pkg:liked" in to_turtle(SMALL)


def test_the_documented_example_is_what_we_write() -> None:
    page = Path(__file__).parents[2] / "docs" / "vocabulary.md"
    block = re.search(r"```json\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    assert block is not None
    graph = from_jsonld(block[1], where="docs/vocabulary.md")
    assert json.loads(block[1]) == json.loads(to_jsonld(graph))


AS_IT_WAS = """\
      "item": {
        "@id": "urn:pkgllm:item:7",
        "@type": "Movie",
        "name": "Amber Kettle (1991)",
        "identifier": "7"
      },
"""


def test_films_are_written_as_before_and_other_items_by_their_class() -> None:
    text = to_jsonld(SMALL)
    assert AS_IT_WAS in text
    assert '"Movie": "schema:Movie"' in text
    recipe = SMALL.only(replace(fact, item_class="Recipe") for fact in SMALL.facts)
    assert to_jsonld(recipe) == text.replace(
        '"@type": "Movie"', '"@type": "https://schema.org/Recipe"'
    )
    assert "a schema:Recipe ;" in to_turtle(recipe)
    actual = rdflib.Graph().parse(data=to_jsonld(recipe), format="json-ld")
    recipes = actual.subjects(rdflib.RDF.type, rdflib.URIRef("https://schema.org/Recipe"))
    assert [str(item) for item in recipes] == [ITEM]


@pytest.mark.parametrize(
    ("types", "read"),
    [
        (None, "Movie"),
        ("Movie", "Movie"),
        (["https://schema.org/CreativeWork", "Movie"], "Movie"),
        (["urn:x:Dish", "Fact2", "http://schema.org/Recipe"], "Recipe"),
        (["urn:x:Dish", "Fact2"], "Movie"),
        (["urn:x:Dish", "https://schema.org/Recipe"], "Recipe"),
        (["schema:VideoObject", "schema:MediaObject"], "MediaObject"),
    ],
)
def test_any_class_of_an_item_is_read(types: Any, read: str) -> None:
    document = edited(lambda d: d["facts"][0]["item"].update({"@type": types}))
    (fact,) = from_jsonld(document, where="x").facts
    assert fact == replace(SMALL.facts[0], item_class=read)


@pytest.mark.parametrize("wrong", ["", "recipe", "A dish", "x/Y", "Récipe"])
def test_what_is_no_class_of_schema_org_is_not_written(wrong: str) -> None:
    graph = SMALL.only(replace(fact, item_class=wrong) for fact in SMALL.facts)
    with pytest.raises(ValueError, match=r"a class of schema.org, such as Recipe, is needed"):
        to_jsonld(graph)


def test_a_fact_may_come_without_an_iri() -> None:
    document = edited(lambda actual: actual["facts"][0].pop("@id"))
    assert from_jsonld(document, where="x") == SMALL


def edited(change: Callable[[dict[str, Any]], object]) -> str:
    document: dict[str, Any] = json.loads(to_jsonld(SMALL))
    change(document)
    return json.dumps(document)


FACT = "urn:pkgllm:fact:p1:7"
ITEM = "urn:pkgllm:item:7"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.pop("@type"), "one node of type .*Owner, got none"),
        (lambda d: d.update({"@type": "Movie"}), "one node of type .*Owner, got none"),
        (
            lambda d: d["facts"].append({"@id": "urn:pkgllm:owner:p2", "@type": "Owner"}),
            "one node of type .*Owner, got urn:pkgllm:owner:p1 and urn:pkgllm:owner:p2",
        ),
        (
            lambda d: d.update({"@id": "urn:pkgllm:item:p1"}),
            "urn:pkgllm:owner: is needed, got urn:pkgllm:item:p1",
        ),
        (
            lambda d: d["facts"][0].update(relation="loved"),
            f"{FACT}: .*relation must be one of .*liked.*got '.*/loved'",
        ),
        (
            lambda d: d["facts"][0].update(source="Rumour!"),
            "a source must be .* and a word of small",
        ),
        (
            lambda d: d["facts"][0].pop("relation"),
            f"{FACT}: .*relation must have one value, got no",
        ),
        (lambda d: d["facts"][0].pop("item"), f"{FACT}: .*item must have one value, got none"),
        (lambda d: d["facts"][0].pop("document"), f"{FACT}: .*wasDerivedFrom must have one value"),
        (lambda d: d["facts"][0].update(document="urn:pkgllm:item:7"), "document: is needed"),
        (lambda d: d["facts"][0].update(document="_:d"), "an IRI is needed, got a node without a"),
        (
            lambda d: d["facts"][0]["item"].update({"@id": "_:i", "identifier": []}),
            "an item needs an IRI or .*identifier, got one with neither",
        ),
        (
            lambda d: d["facts"].append(
                d["facts"][0]
                | {
                    "@id": "urn:x:3",
                    "item": d["facts"][0]["item"] | {"@id": "https://x.org/7"},
                }
            ),
            "each item must have an id of its own, got '7' for urn:pkgllm:item:7 and https://x.org/7",
        ),
        (lambda d: d["facts"][0]["item"].pop("name"), f"{ITEM}: .*name must have one value"),
        (
            lambda d: d["facts"][0]["item"].update(name=["A", "B"]),
            f"{ITEM}: .*name must have one value, got 'A' and 'B'",
        ),
        (
            lambda d: d["facts"][0]["item"].update(name={"@id": "urn:x:y"}),
            f"{ITEM}: .*name must be a text",
        ),
        (
            lambda d: d["facts"][0]["item"].update(identifier="8"),
            f"{ITEM}: .*identifier must be '7', as its IRI says, got '8'",
        ),
        (
            lambda d: d["facts"][0].update(session=-1),
            f"{FACT}: .*session must be a whole number from 0, got '-1'",
        ),
        (
            lambda d: d["facts"][0].update(position="2"),
            f"{FACT}: .*position must be a whole number",
        ),
        (
            lambda d: d["facts"][0].update(position=1.5),
            f"{FACT}: .*position must be a whole number",
        ),
        (lambda d: d["facts"][0].update(position=True), f"{FACT}: .*position must be a whole"),
        (
            lambda d: d["facts"].append({**d["facts"][0], "@id": "urn:x:2", "relation": "seen"}),
            "an item has at most one fact, got two about '7'",
        ),
        (
            lambda d: d["facts"][0]["item"].update(extra={"@id": "urn:x:2", "@type": "Fact"}),
            "urn:x:2: a fact must belong to the owner",
        ),
    ],
)
def test_a_document_that_is_no_personal_graph_is_refused(
    change: Callable[[dict[str, Any]], object], message: str
) -> None:
    with pytest.raises(DataError, match=f"^me.jsonld: .*{message}"):
        from_jsonld(edited(change), where="me.jsonld")


@pytest.mark.parametrize(
    "context",
    [
        "https://schema.org",
        ["https://schema.org", {"@vocab": vocabulary.NAMESPACE}],
        {"@import": "https://schema.org"},
        {"item": {"@id": "pkg:item", "@context": "https://schema.org"}},
    ],
)
def test_a_remote_context_is_refused_and_nothing_is_fetched(
    context: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_network(*_: object, **__: object) -> None:
        pytest.fail("the network was touched")

    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    monkeypatch.setattr(socket.socket, "connect", no_network)
    at_the_top = edited(lambda d: d.update({"@context": context}))
    in_a_fact = edited(lambda d: d["facts"][0].update({"@context": context}))
    for text in (at_the_top, in_a_fact):
        with pytest.raises(DataError, match=r"me.jsonld: .*must stand in the document.*schema.org"):
            from_jsonld(text, where="me.jsonld")


def test_broken_json_names_the_file_and_the_line() -> None:
    text = to_jsonld(SMALL)
    cut_off = text[: text.index('"session"')]
    line = cut_off.count("\n") + 1
    with pytest.raises(DataError, match=rf"me.jsonld:{line}: not JSON: .*may be cut off"):
        from_jsonld(cut_off, where="me.jsonld")


def test_broken_turtle_names_the_file_and_the_line() -> None:
    text = to_turtle(SMALL).replace("pkg:session 0", "pkg:session zero")
    line = text[: text.index("pkg:session zero")].count("\n") + 1
    with pytest.raises(DataError, match=rf"me.ttl:{line}: not Turtle: "):
        from_turtle(text, where="me.ttl")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | texts,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            texts | st.sampled_from(["@id", "@type", "@graph", "@context", "@list", "facts"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=8,
)


@given(json_values)
def test_any_other_json_is_refused_as_data_and_never_crashes(value: object) -> None:
    with pytest.raises(DataError, match=r"^x"):
        from_jsonld(json.dumps(value), where="x")


@pytest.mark.slow
@given(st.integers(1, 600))
def test_any_cut_of_a_document_is_refused(length: int) -> None:
    # The last character is a newline and may be lost without harm.
    jsonld, turtle = to_jsonld(SMALL).rstrip(), to_turtle(SMALL).rstrip()
    with pytest.raises(DataError, match=r"^x"):
        from_jsonld(jsonld[:-length], where="x")
    with pytest.raises(DataError, match=r"^x"):
        from_turtle(turtle[:-length], where="x")


def test_deep_nesting_and_endless_numbers_are_refused() -> None:
    for text in ("[" * 100_000, "9" * 5000):
        with pytest.raises(DataError, match=r"^x(:1)?: not "):
            from_jsonld(text, where="x")


def test_files_that_cannot_be_read_or_written(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone.ttl: cannot be read: No such file"):
        read_graph(tmp_path / "gone.ttl")
    with pytest.raises(
        DataError, match=r"must end in .jsonld, .json, .ttl, .trig or .nq, got '.xml'"
    ):
        read_graph(tmp_path / "graph.xml")
    with pytest.raises(DataError, match=r"must end in .jsonld, .json, .ttl, .trig or .nq, got ''"):
        write_graph(SMALL, tmp_path / "graph")
    (tmp_path / "latin.ttl").write_bytes(b"\xe9")
    with pytest.raises(DataError, match=r"latin.ttl: not UTF-8 text: .* at byte 0"):
        read_graph(tmp_path / "latin.ttl")
    with pytest.raises(RunError, match="cannot write"):
        write_graph(SMALL, tmp_path / "no" / "folder.ttl")


def test_a_byte_order_mark_is_read_over(tmp_path: Path) -> None:
    (tmp_path / "me.jsonld").write_bytes(b"\xef\xbb\xbf" + to_jsonld(SMALL).encode())
    assert read_graph(tmp_path / "me.jsonld") == SMALL


def test_the_documented_history_is_what_we_write() -> None:
    page = Path(__file__).parents[2] / "docs" / "vocabulary.md"
    _, block = re.findall(r"```json\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    document = {"@context": dict(vocabulary.RECORD_CONTEXT), **json.loads(block)}
    record = record_from_jsonld(json.dumps(document), where="docs/vocabulary.md")
    assert json.loads(to_jsonld(record)) == document
