"""Check a person's file against the SHACL shapes of the package."""

from pathlib import Path

import pyshacl
import rdflib
from rdflib.namespace import SH

from pkgllm.errors import DataError
from pkgllm.graph.rdf import record_of
from pkgllm.graph.rdf_text import read_rdf

SHAPES = Path(__file__).with_name("shapes.ttl")


def violations(path: Path) -> tuple[str, ...]:
    """Return a line for each violation of the shapes, or of rules that shapes cannot express.

    Source of the shapes' language: W3C, Shapes Constraint Language (SHACL), 2017.

    Raises:
        DataError: If the file cannot be read, or is not JSON-LD or Turtle.
    """
    graph = read_rdf(path)
    shapes = rdflib.Graph(bind_namespaces="none").parse(SHAPES, format="turtle")
    conforms, report, _ = pyshacl.validate(graph, shacl_graph=shapes)
    if not conforms:
        assert isinstance(report, rdflib.Graph)
        return _messages(report)
    try:
        record_of(graph, str(path))
    except DataError as error:
        return (str(error).removeprefix(f"{path}: "),)
    return ()


def _messages(report: rdflib.Graph) -> tuple[str, ...]:
    lines = []
    for result in report.subjects(SH.resultSeverity, SH.Violation):
        path, message = report.value(result, SH.resultPath), report.value(result, SH.resultMessage)
        value = report.value(result, SH.value)
        lines.append(
            f"{report.value(result, SH.focusNode)}: {f'{path}: ' if path else ''}{message}"
            f"{f', got {str(value)!r}' if value is not None else ''}"
        )
    return tuple(sorted(lines))
