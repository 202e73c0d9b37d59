"""Check a person's file against the SHACL shapes of the package."""

from pathlib import Path

import pyshacl
import rdflib
from rdflib.namespace import SH
from rdflib.term import Node, URIRef

from pkgllm.errors import DataError
from pkgllm.graph.personal_document import PersonalDocument
from pkgllm.graph.rdf_text import quiet, read_rdf
from pkgllm.graph.vocabulary import https

SHAPES = Path(__file__).with_name("shapes.ttl")


def violations(path: Path) -> tuple[str, ...]:
    """Return a line for each violation of the shapes, or of rules that shapes cannot express.

    Source of the shapes' language: W3C, Shapes Constraint Language (SHACL), 2017.

    Raises:
        DataError: If the file cannot be read, or is not JSON-LD or Turtle.
    """
    dataset = read_rdf(path)
    shapes = rdflib.Graph(bind_namespaces="none").parse(SHAPES, format="turtle")
    with quiet():
        conforms, report, _ = pyshacl.validate(_as_shaped(dataset), shacl_graph=shapes)
    if not conforms:
        assert isinstance(report, rdflib.Graph)
        return _messages(report)
    try:
        PersonalDocument.of(dataset, str(path))
    except DataError as error:
        return (str(error).removeprefix(f"{path}: "),)
    return ()


def _as_shaped(dataset: rdflib.Dataset) -> rdflib.Graph:
    """Return the default graph with the names of schema.org in the one form that shapes have."""
    graph = rdflib.Graph(bind_namespaces="none")
    for subject, predicate, value in dataset.default_graph:
        graph.add((_https(subject), _https(predicate), _https(value)))
    return graph


def _https(node: Node) -> Node:
    return URIRef(https(node)) if isinstance(node, URIRef) else node


def _messages(report: rdflib.Graph) -> tuple[str, ...]:
    lines = set()
    for result in report.subjects(SH.resultSeverity, SH.Violation):
        path, message = report.value(result, SH.resultPath), report.value(result, SH.resultMessage)
        value = report.value(result, SH.value)
        lines.add(
            f"{report.value(result, SH.focusNode)}: {f'{path}: ' if path else ''}{message}"
            f"{f', got {str(value)!r}' if value is not None else ''}"
        )
    return tuple(sorted(lines))
