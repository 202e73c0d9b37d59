"""Read graphs and records from texts in RDF formats."""

from pkgllm.graph.personal_graph import PersonalGraph
from pkgllm.graph.personal_record import PersonalRecord
from pkgllm.graph.rdf import record_of
from pkgllm.graph.rdf_text import parse_jsonld, parse_turtle


def record_from_jsonld(text: str, *, where: str) -> PersonalRecord:
    return record_of(parse_jsonld(text, where=where), where)


def record_from_turtle(text: str, *, where: str) -> PersonalRecord:
    return record_of(parse_turtle(text, where=where), where)


def from_jsonld(text: str, *, where: str) -> PersonalGraph:
    return record_from_jsonld(text, where=where).graph


def from_turtle(text: str, *, where: str) -> PersonalGraph:
    return record_from_turtle(text, where=where).graph
