"""RDF as text, to quads and back, without network access and with every literal as it was written.

JSON-LD, Turtle, TriG and N-Quads are read and written. Relative IRIs stay relative: they are
resolved against a base of our own, which is taken off when they are written.
"""

import logging
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import rdflib
from rdflib import namespace
from rdflib.graph import DATASET_DEFAULT_GRAPH_ID
from rdflib.namespace import NamespaceManager
from rdflib.plugins.parsers.notation3 import BadSyntax
from rdflib.plugins.serializers.turtle import TurtleSerializer
from rdflib.term import Literal, Node, URIRef

from pkgllm import json_text
from pkgllm.errors import DataError

ENDINGS: Mapping[str, str] = {
    ".jsonld": "json-ld",
    ".json": "json-ld",
    ".ttl": "turtle",
    ".trig": "trig",
    ".nq": "nquads",
}
"""Formats by the ending of a file."""

NAMES: Mapping[str, str] = {
    "json-ld": "JSON-LD",
    "turtle": "Turtle",
    "trig": "TriG",
    "nquads": "N-Quads",
}

BASE = "http://relative.invalid/"
"""What relative IRIs are resolved against; the name can never be an address (RFC 2606)."""

_LOGS = ("rdflib", "rdflib.term")
_PARSING = threading.RLock()


def format_of(path: Path) -> str:
    """Return the format in which a file is read or written, by its ending.

    Raises:
        DataError: If it has another ending.
    """
    name = ENDINGS.get(path.suffix.lower())
    if name is None:
        *first, last = ENDINGS
        raise DataError(
            f"{path}: a graph's file must end in {', '.join(first)} or {last}, got {path.suffix!r}"
        )
    return name


def read_text(path: Path) -> str:
    """Return the text of a file.

    Raises:
        DataError: If the file cannot be read, or is not UTF-8.
    """
    try:
        # Not read_text, which would turn a carriage return inside a Turtle literal into a newline.
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text: {error.reason} at byte {error.start}") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error


def read_rdf(path: Path) -> rdflib.Dataset:
    """Read a file, by its ending, as an RDF dataset.

    Raises:
        DataError: If the file cannot be read or is not in the format of its ending.
    """
    format_ = format_of(path)
    return parse(read_text(path), format_, where=str(path))


def parse(text: str, format_: str, *, where: str) -> rdflib.Dataset:
    """Return a text as an RDF dataset.

    Raises:
        DataError: If the text is not in the format, is JSON-LD with a key twice, or refers to a
            remote context.
    """
    if format_ == "json-ld":
        _check_json(text, where)
    dataset = rdflib.Dataset()
    dataset.namespace_manager = NamespaceManager(dataset, bind_namespaces="none")
    name = NAMES[format_]
    try:
        with quiet():
            dataset.parse(data=text, format=format_, publicID=BASE)
    except BadSyntax as error:
        reason = " ".join(error.message.split())
        raise DataError(
            f"{where}:{error.lines + 1}: not {name}: {reason}; the file may be cut off"
            + (_other_format(text) if format_ == "turtle" else "")
        ) from error
    except Exception as error:
        # On malformed text, rdflib raises errors of many types, KeyError included.
        reason = " ".join(str(error).split())
        raise DataError(f"{where}: not {name}: {type(error).__name__}: {reason}") from error
    return dataset


@contextmanager
def quiet() -> Iterator[None]:
    """Keep literals as they are written, and rdflib's remarks off the terminal.

    rdflib rewrites ``"01"^^xsd:integer`` to ``"1"`` by a switch of the whole process, and logs a
    traceback for each literal that it cannot convert, whether or not anybody asks for its value.
    """
    logs = [logging.getLogger(name) for name in _LOGS]
    with _PARSING:
        before = rdflib.NORMALIZE_LITERALS, [log.disabled for log in logs]
        rdflib.NORMALIZE_LITERALS = False
        for log in logs:
            log.disabled = True
        try:
            yield
        finally:
            rdflib.NORMALIZE_LITERALS = before[0]
            for log, disabled in zip(logs, before[1], strict=True):
                log.disabled = disabled


def relative(iri: str) -> str:
    """Return an IRI as it is written: without the base that a relative one was resolved against."""
    return iri.removeprefix(BASE)


class _ExactTerms(TurtleSerializer):
    """rdflib's Turtle, with literals and relative IRIs as they were written.

    rdflib's own writer shortens ``"1.00000001E0"^^xsd:double`` to seven digits.
    """

    def label(self, node: Node, position: int) -> str:
        """Return a term as text."""
        if isinstance(node, Literal) and node.datatype not in (None, namespace.XSD.integer):
            return node._literal_n3(qname_callback=lambda kind: self.get_pname(kind, False))
        if isinstance(node, URIRef) and node.startswith(BASE):
            return f"<{relative(node)}>"
        return str(super().label(node, position))


def turtle(dataset: rdflib.Dataset) -> str:
    """Return the default graph of a dataset as Turtle."""
    out = BytesIO()
    _ExactTerms(dataset.default_graph).serialize(out)
    return out.getvalue().decode()


def blocks(dataset: rdflib.Dataset) -> str:
    """Return the named graphs of a dataset as blocks of TriG, one line for each triple."""
    return "".join(
        f"\n{graph.identifier.n3()} {{\n{graph.serialize(format='nt')}}}\n"
        for graph in dataset.graphs()
        if graph.identifier != DATASET_DEFAULT_GRAPH_ID
    )


def _check_json(text: str, where: str) -> None:
    try:
        _refuse_remote_contexts(json_text.loads(text), where)
    except json_text.JsonError as error:
        raise DataError(f"{where}:{error.line}: {error}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: not a personal graph: {error}") from error


def _refuse_remote_contexts(value: Any, where: str, *, in_context: bool = False) -> None:
    if isinstance(value, str) and in_context:
        raise DataError(
            f"{where}: the JSON-LD context must stand in the document, got the address {value!r}; "
            "nothing is fetched from the network: write the context out"
        )
    if isinstance(value, list):
        for part in value:
            _refuse_remote_contexts(part, where, in_context=in_context)
    elif isinstance(value, dict):
        for key, part in value.items():
            _refuse_remote_contexts(part, where, in_context=key in ("@context", "@import"))


def _other_format(text: str) -> str:
    return ", or it holds named graphs: then call it .trig" if "{" in text else ""
