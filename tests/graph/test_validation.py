import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import rdflib
from rdflib.term import Literal, Variable

from pkgllm.errors import DataError
from pkgllm.graph.personal_graph import Fact, Moment, PersonalGraph, Provenance
from pkgllm.graph.personal_record import PersonalRecord, Verdict, Wish
from pkgllm.graph.rdf import write_graph
from pkgllm.graph.validation import violations

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)
SAID = Provenance("own_answer", "conversation/1")
OWN = Provenance("own_edit", "edit/1")
OLD = PersonalGraph("p1", (Fact("liked", "7", "Heat (1995)", Moment(0, 0), SAID),))
FULL = (
    PersonalRecord.of(OLD)
    .edited(
        "dislike",
        NOON,
        OWN,
        verdicts=[Verdict("disliked", "7", "Heat (1995)")],
        wishes=[Wish("avoid", "genre", "Horror", 0.25)],
    )
    .edited("drop", NOON, OWN, drop={"r1"}, wishes=[Wish("prefer", "person", "Ann Lee")])
)
RECIPES = PersonalGraph("p1", (Fact("liked", "r1", "Dal", Moment(0, 0), SAID, "Recipe"),))


@pytest.mark.parametrize("ending", ["jsonld", "ttl"])
@pytest.mark.parametrize("held", [OLD, FULL, RECIPES])
def test_what_we_write_is_good(held: Any, ending: str, tmp_path: Path) -> None:
    write_graph(held, tmp_path / f"me.{ending}")
    assert violations(tmp_path / f"me.{ending}") == ()


def test_others_find_times_and_what_was_taken_back_in_the_terms_of_prov(tmp_path: Path) -> None:
    write_graph(FULL, tmp_path / "me.jsonld")
    actual = rdflib.Graph().parse(tmp_path / "me.jsonld", format="json-ld")
    rows = actual.query(
        """
        PREFIX prov: <http://www.w3.org/ns/prov#>
        PREFIX schema: <https://schema.org/>
        PREFIX pkg: <https://w3id.org/pkgllm/>
        SELECT ?name ?time WHERE {
            ?past a pkg:PastFact ; pkg:item/schema:name ?name ; prov:wasInvalidatedBy ?edit .
            ?edit prov:endedAtTime ?time .
        }
        """
    )
    assert rows.bindings == [
        {Variable("name"): Literal("Heat (1995)"), Variable("time"): Literal(NOON)}
    ]


BROKEN: list[tuple[Callable[[dict[str, Any]], object], str]] = [
    (lambda d: d["facts"][0].update(relation="loved"), "fact:p1:7: .*relation: .*got '.*loved'"),
    (lambda d: d["facts"][0].update(session=-1), "fact:p1:7: .*session: .*got '-1'"),
    (lambda d: d["facts"][0].update(source="Rumour!"), "fact:p1:7: .*wasAttributedTo"),
    (lambda d: d["facts"][0].pop("document"), "fact:p1:7: .*wasDerivedFrom"),
    (
        lambda d: [d[k][0]["item"].pop("name") for k in ("facts", "past")],
        "item:7: .*name must have one value",
    ),
    (
        lambda d: [d[k][0]["item"].update({"@type": "Rule"}) for k in ("facts", "past")],
        "item:7: .*type: a class of schema.org is needed",
    ),
    (lambda d: d["facts"][0]["item"].update(name={"@id": "urn:x:y"}), "item:7: .*name: .*urn:x:y"),
    (lambda d: d["rules"][0].update(strength="2"), "rule:p1:r2: .*strength: .*got '2'"),
    (lambda d: d["rules"][0].update(direction="hate"), "rule:p1:r2: .*direction"),
    (lambda d: d["rules"][0].update(value=" "), "rule:p1:r2: .*value"),
    (lambda d: d["past"][0].pop("endedBy"), "past:p1:7:1: .*wasInvalidatedBy"),
    (lambda d: d["edits"][0].update(time="noon"), "edit:p1:1: .*endedAtTime"),
    (lambda d: d["edits"][0].update(number=0), "edit:p1:1: .*number: .*got '0'"),
    # What shapes cannot say is said by the reader.
    (lambda d: d["edits"].pop(), "must have one value, got none|Less than 1|does not have class"),
    (lambda d: d["edits"][0].update(number=7), "edits are numbered 1, 2"),
]


@pytest.mark.parametrize(("change", "message"), BROKEN)
def test_each_violation_is_named(
    change: Callable[[dict[str, Any]], object], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "me.jsonld"
    write_graph(FULL, path)
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))
    actual = violations(path)
    assert any(re.search(message, line) for line in actual), actual


def test_several_violations_are_told_together(tmp_path: Path) -> None:
    path = tmp_path / "me.jsonld"
    write_graph(FULL, path)
    document = json.loads(path.read_text())
    document["facts"][0]["relation"] = "loved"
    document["rules"][0]["strength"] = "2"
    path.write_text(json.dumps(document))
    assert len(violations(path)) == 2


def test_what_is_no_rdf_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "me.jsonld").write_text("{\n")
    with pytest.raises(DataError, match=r"me.jsonld:2: not JSON"):
        violations(tmp_path / "me.jsonld")
