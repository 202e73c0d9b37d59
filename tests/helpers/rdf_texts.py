"""Read graphs and records from texts in RDF formats."""

from pkgllm.graph.personal_document import PersonalDocument
from pkgllm.graph.personal_graph import PersonalGraph
from pkgllm.graph.personal_record import PersonalRecord


def record_from_jsonld(text: str, *, where: str) -> PersonalRecord:
    return PersonalDocument.read(text, "json-ld", where).record


def record_from_turtle(text: str, *, where: str) -> PersonalRecord:
    return PersonalDocument.read(text, "turtle", where).record


def from_jsonld(text: str, *, where: str) -> PersonalGraph:
    return record_from_jsonld(text, where=where).graph


def from_turtle(text: str, *, where: str) -> PersonalGraph:
    return record_from_turtle(text, where=where).graph
