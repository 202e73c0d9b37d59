"""Personal graphs and records as RDF files: JSON-LD, Turtle, TriG and N-Quads.

This module and its neighbours are the only door to rdflib. Reading needs no network: a document
that refers to a remote context is refused. ``docs/vocabulary.md`` explains the terms.
"""

from pathlib import Path

from pkgllm.files import write_atomically
from pkgllm.graph.personal_document import PersonalDocument
from pkgllm.graph.personal_graph import PersonalGraph
from pkgllm.graph.personal_record import PersonalRecord
from pkgllm.graph.rdf_text import format_of, read_rdf


def to_jsonld(content: PersonalGraph | PersonalRecord) -> str:
    """Return a graph or a record as one nested JSON-LD document with its context inline.

    Facts are in order of time and contain their item. A record without edits and rules is written
    like its graph.
    """
    return _document(content).text("json-ld")


def to_turtle(content: PersonalGraph | PersonalRecord) -> str:
    """Return a graph or a record as Turtle, with the same triples as :func:`to_jsonld`."""
    return _document(content).text("turtle")


def _document(content: PersonalGraph | PersonalRecord) -> PersonalDocument:
    record = PersonalRecord.of(content) if isinstance(content, PersonalGraph) else content
    return PersonalDocument.new(record)


def read_graph(path: Path) -> PersonalGraph:
    """Read the current graph from a file, in the format of its ending.

    Raises:
        DataError: If the file cannot be read, or does not hold a personal graph.
    """
    return read_record(path).graph


def read_record(path: Path) -> PersonalRecord:
    """Read a record from a file, in the format of its ending.

    Raises:
        DataError: If the file cannot be read, or does not hold a personal graph.
    """
    return read_document(path).record


def read_document(path: Path) -> PersonalDocument:
    """Read a person's file with all that it holds, in the format of its ending.

    Raises:
        DataError: If the file cannot be read, or does not hold a personal graph.
    """
    return PersonalDocument.of(read_rdf(path), str(path))


def write_document(document: PersonalDocument, path: Path) -> None:
    """Write a document to a file atomically, in the format of its ending.

    Args:
        document: The document.
        path: The file.

    Raises:
        DataError: If the ending names no format, or the format cannot hold the document.
        RunError: If the file cannot be written.
    """
    write_atomically(path, document.exact_text(format_of(path), str(path)))


def write_graph(content: PersonalGraph | PersonalRecord, path: Path) -> None:
    """Write a graph or a record to a new file, as :func:`write_document` does."""
    write_atomically(path, _document(content).text(format_of(path)))
