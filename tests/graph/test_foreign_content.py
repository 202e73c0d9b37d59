"""Whatever others wrote into a person's file stays there, and an edit is exactly the edit."""

import logging
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

import pytest
import rdflib
from hypothesis import given, settings
from hypothesis import strategies as st
from rdflib.compare import isomorphic
from rdflib.term import BNode, Literal, Node, URIRef

from pkgllm.errors import DataError
from pkgllm.graph.personal_document import PersonalDocument
from pkgllm.graph.personal_file import change, original_of
from pkgllm.graph.personal_graph import Provenance
from pkgllm.graph.personal_record import PersonalRecord, Verdict, Wish
from pkgllm.graph.rdf import read_document, read_record
from pkgllm.graph.rdf_text import quiet
from pkgllm.graph.record_triples import Triple

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)
OWN = Provenance("own_edit", "edit/1")
PKG = "https://w3id.org/pkgllm/"
PREFIXES = f"""\
@prefix pkg: <{PKG}> .
@prefix schema: <https://schema.org/> .
@prefix prov: <http://www.w3.org/ns/prov#> .
@prefix xsd: <http://www.w3.org/2001/XMLSchema#> .
@prefix foaf: <http://xmlns.com/foaf/0.1/> .
"""
PERSON = (
    PREFIXES
    + """\
<https://zoe.example/card#me> a pkg:Owner, foaf:Person ; foaf:name "Zoë"@de ;
  pkg:fact <#1>, [ a pkg:Fact ; pkg:relation pkg:seen ;
    pkg:item <http://www.wikidata.org/entity/Q1> ;
    pkg:session "01"^^xsd:integer ; pkg:position 0 ; prov:wasAttributedTo pkg:own_answer ;
    prov:wasDerivedFrom <https://diary.example/2> ;
    schema:reviewRating [ schema:ratingValue 4.50 ] ] .
<#1> a pkg:Fact ; pkg:relation pkg:liked ; pkg:item <urn:pkgllm:item:7> ;
  pkg:session "+0"^^xsd:int ; pkg:position 0 ; prov:wasAttributedTo pkg:own_answer ;
  prov:wasDerivedFrom <urn:pkgllm:document:d> ;
  <http://purl.org/dc/terms/created> "2020-07-03"^^xsd:date .
<urn:pkgllm:item:7> a schema:Movie ; schema:name "Heat (1995)" ; schema:identifier "7" .
<http://www.wikidata.org/entity/Q1> a <http://schema.org/Movie> ;
  <http://schema.org/name> "Amélie"@fr, "Amelie"@en .
<urn:pkgllm:item:8> schema:sameAs <https://film.example/8> .
<urn:pkgllm:item:9> schema:name "Ran"@ja ; <urn:x:double> "1.000000001E0"^^xsd:double .
"""
)
FORMATS = ["json-ld", "turtle", "trig", "nquads"]

_KNOWN = [
    URIRef("https://zoe.example/card#me"),
    URIRef("urn:pkgllm:item:7"),
    URIRef("urn:pkgllm:item:8"),
    URIRef("urn:pkgllm:item:new"),
    URIRef("urn:pkgllm:fact:https%3A%2F%2Fzoe.example%2Fcard%23me:7"),
    URIRef("https://x.example/a"),
    URIRef("urn:x:b"),
    BNode("one"),
    BNode("two"),
]
_PREDICATES = [
    URIRef("http://xmlns.com/foaf/0.1/knows"),
    URIRef("https://schema.org/sameAs"),
    URIRef("http://schema.org/alternateName"),
    URIRef("http://purl.org/dc/terms/created"),
    URIRef("https://w3id.org/pkgllm/of_others"),
    rdflib.RDF.type,
    rdflib.RDF.first,
    rdflib.RDF.rest,
]
_texts = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=6)
with quiet():
    _ODD = [
        Literal("01", datatype=rdflib.XSD.integer),
        Literal("x", datatype=rdflib.XSD.integer),
        Literal("4.50", datatype=rdflib.XSD.decimal),
        Literal("1.000000001E0", datatype=rdflib.XSD.double),
        Literal("-0038", datatype=rdflib.XSD.gYear),
        Literal("1", datatype=rdflib.XSD.boolean),
        Literal('line\n"quoted" \\', lang="en-GB"),
    ]
_literals = st.one_of(
    _texts.map(Literal),
    st.builds(lambda text: Literal(text, lang="fr"), _texts),
    st.sampled_from(_ODD),
)
_nodes = st.sampled_from([*_KNOWN, rdflib.RDF.nil])


def _triple(parts: tuple[Node, Node, Node]) -> tuple[Node, Node, Node]:
    subject, predicate, value = parts
    named = isinstance(value, URIRef) and value not in (*_KNOWN[:5], rdflib.RDF.nil)
    return parts if predicate != rdflib.RDF.type or named else (subject, predicate, _KNOWN[5])


_foreign = st.lists(
    st.tuples(
        st.sampled_from(_KNOWN), st.sampled_from(_PREDICATES), st.one_of(_nodes, _literals)
    ).map(_triple),
    max_size=10,
)
_edits = st.lists(
    st.sampled_from(
        [
            {"verdicts": [Verdict("disliked", "7", "Heat (1995)")]},
            {"verdicts": [Verdict("liked", "8", "Eight (2000)")]},
            {"verdicts": [Verdict("disliked", "8", "Eight (2000)")]},
            {"verdicts": [Verdict("seen", "new", "New"), Verdict("liked", "9", "Ran (1985)")]},
            {"verdicts": [Verdict("liked", "http://www.wikidata.org/entity/Q1", "Amelie")]},
            {"wishes": [Wish("avoid", "genre", "Horror", 0.3)]},
            {"forget": ["7"]},
        ]
    ),
    min_size=1,
    max_size=4,
)


def with_foreign(
    foreign: Iterable[tuple[Node, Node, Node]],
    named: Iterable[tuple[Node, Node, Node]] = (),
    text: str = PERSON,
) -> PersonalDocument:
    base = PersonalDocument.read(text, "turtle", "me.ttl")
    graphs: dict[Node, set[Triple]] = {URIRef("urn:g"): set(named)} if named else {}
    return PersonalDocument(
        base.record, base.nodes, base.triples | frozenset(foreign), graphs, base.prefixes
    )


def edited(record: PersonalRecord, edit: dict[str, object]) -> PersonalRecord:
    forget = [tail for tail in edit.get("forget", ()) if tail in record.graph.tails]  # type: ignore[attr-defined]
    return record.edited("edit", NOON, OWN, **(edit | {"forget": forget}))  # type: ignore[arg-type]


def graph_of(document: PersonalDocument) -> rdflib.Graph:
    graph = rdflib.Graph()
    for triple in document.triples:
        graph.add(triple)
    return graph


@pytest.mark.slow
@pytest.mark.parametrize("format_", FORMATS)
@settings(max_examples=15)
@given(foreign=_foreign, named=_foreign, edits=_edits)
def test_an_edit_keeps_what_others_wrote_and_undo_gives_the_graph_back(
    format_: str,
    foreign: list[tuple[Node, Node, Node]],
    named: list[tuple[Node, Node, Node]],
    edits: list[dict[str, object]],
) -> None:
    # N-Quads have no relative IRIs.
    person = PERSON.replace("<#1>", "<urn:x:fact>") if format_ == "nquads" else PERSON
    first = with_foreign(foreign, () if format_ == "turtle" else named, person)
    others = set(first.triples) - set(PersonalDocument.new(first.record).triples)
    document, states = first, [first]
    for edit in edits:
        record = edited(document.record, edit)
        if record != document.record:
            document = document.changed(record)
            # To the disk and back, as every command does.
            text = document.exact_text(format_, "me")
            document = PersonalDocument.read(text, format_, "me")
            # Names of items are those of the file, so only what was said is compared.
            assert [(f.relation, f.tail) for f in document.record.graph.facts] == [
                (f.relation, f.tail) for f in record.graph.facts
            ]
            states.append(document)
    plain = {t for t in foreign if not any(isinstance(node, BNode) for node in t)}
    assert plain <= document.triples
    assert len(document.triples) >= len(others - set(first.triples)) + len(plain)
    for before in reversed(states[:-1]):
        document = document.changed(document.record.undone())
        document = PersonalDocument.read(document.exact_text(format_, "me"), format_, "me")
        assert isomorphic(graph_of(document), graph_of(before))
        assert len(document.named) == len(before.named)
    assert isomorphic(graph_of(document), graph_of(first))


def test_what_an_edit_adds_and_removes_by_hand() -> None:
    before = with_foreign([])
    after = before.changed(edited(before.record, {"verdicts": [Verdict("disliked", "7", "Heat")]}))
    removed, added = before.triples - after.triples, after.triples - before.triples
    fact, owner = URIRef("http://relative.invalid/#1"), URIRef("https://zoe.example/card#me")
    assert {t[0] for t in removed} == {fact, owner}
    assert sorted(str(t[1]).removeprefix(PKG) for t in removed if t[0] == fact) == [
        str(rdflib.RDF.type),
        str(rdflib.PROV.wasAttributedTo),
        str(rdflib.PROV.wasDerivedFrom),
        "item",
        "position",
        "relation",
        "session",
    ]
    past = "urn:pkgllm:past:https%3A%2F%2Fzoe.example%2Fcard%23me:7:1"
    moved = {t[1:] for t in added if str(t[0]) == past}
    # Its values are as they were written.
    assert (
        URIRef(PKG + "session"),
        Literal("+0", datatype=rdflib.XSD.int, normalize=False),
    ) in moved
    assert (URIRef(rdflib.PROV.alternateOf), fact) in moved
    # link, class and 7 properties of the new fact; link and 4 of the edit; the past one's link,
    # class, 6 properties, name before and edit
    assert len(added) == 9 + 5 + 10


@pytest.mark.parametrize("ending", ["ttl", "jsonld", "trig", "nq"])
def test_a_file_keeps_its_mode_a_copy_of_its_text_and_every_triple(
    ending: str, tmp_path: Path
) -> None:
    path = tmp_path / f"me.{ending}"
    text = PERSON if ending in ("ttl", "trig") else None
    if text is None:
        name = {"jsonld": "json-ld", "nq": "nquads"}[ending]
        text = rdflib.Dataset().parse(data=PERSON, format="turtle").serialize(format=name)
    text = text if ending == "jsonld" else "# my notes\n" + text
    path.write_text(text, encoding="utf-8")
    path.chmod(0o600)
    before = read_document(path)
    change(path, lambda record: edited(record, {"forget": ["7"]}))
    assert path.stat().st_mode & 0o777 == 0o600
    assert original_of(path).read_text(encoding="utf-8") == text
    assert original_of(path).stat().st_mode & 0o777 == 0o600
    change(path, PersonalRecord.undone)
    assert isomorphic(graph_of(read_document(path)), graph_of(before))
    assert original_of(path).read_text(encoding="utf-8") == text


def test_owners_items_and_schema_org_are_read_in_all_their_forms() -> None:
    record = PersonalDocument.read(PERSON, "turtle", "me.ttl").record
    assert record.owner == "https://zoe.example/card#me"
    assert {(f.tail, f.name, f.item_class) for f in record.graph.facts} == {
        ("7", "Heat (1995)", "Movie"),
        ("http://www.wikidata.org/entity/Q1", "Amelie", "Movie"),
    }


def test_an_owner_in_a_named_graph_is_refused_by_its_name(tmp_path: Path) -> None:
    inner = PERSON.removeprefix(PREFIXES)
    (tmp_path / "me.trig").write_text(f"{PREFIXES}<urn:g:1> {{ {inner} }}", encoding="utf-8")
    with pytest.raises(DataError, match=r"me.trig: the owner stands in the named graph urn:g:1"):
        read_record(tmp_path / "me.trig")


def test_what_a_format_cannot_hold_is_refused_before_the_file_is_touched(tmp_path: Path) -> None:
    path = tmp_path / "me.ttl"
    path.write_text(PERSON.replace("item:7>", "item:my film>").replace('"7"', '"my film"'))
    text = path.read_text()
    assert "my film" in read_record(path).graph.tails
    with pytest.raises(DataError, match=r"me.ttl: .*cannot be written as Turtle"):
        change(path, lambda record: edited(record, {"verdicts": [Verdict("liked", "8", "Eight")]}))
    assert path.read_text() == text
    document = with_foreign([], [(_KNOWN[0], _PREDICATES[0], _KNOWN[1])])
    with pytest.raises(
        DataError, match=r"Turtle cannot hold the named graph urn:g; use the ending"
    ):
        document.exact_text("turtle", "me.ttl")
    with pytest.raises(DataError, match="N-Quads cannot hold the relative IRI <#1>"):
        document.exact_text("nquads", "me.nq")


def test_a_json_key_that_stands_twice_is_refused_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "me.jsonld"
    path.write_text('{"@id": "urn:pkgllm:owner:1",\n "facts": [],\n "facts": []}')
    with pytest.raises(DataError, match=r'me.jsonld:3: the key "facts" stands twice'):
        read_record(path)


def test_literals_of_others_that_cannot_be_converted_are_nobodys_business(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "me.ttl"
    odd = '<urn:pkgllm:item:7> schema:datePublished "24:61"^^xsd:time, "x"^^xsd:integer .'
    path.write_text(f"{PERSON}{odd} <urn:a b> <urn:p> <urn:c> .", encoding="utf-8")
    with caplog.at_level(logging.DEBUG):
        assert len(read_record(path).graph.facts) == 2
    assert caplog.records == []
    assert capsys.readouterr() == ("", "")
    assert not logging.getLogger("rdflib.term").disabled
