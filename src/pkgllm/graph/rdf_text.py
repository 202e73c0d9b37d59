"""JSON-LD and Turtle, from text to an RDF graph, without network access."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import rdflib
from rdflib.plugins.parsers.notation3 import BadSyntax

from pkgllm.errors import DataError

ENDINGS: Mapping[str, str] = {".jsonld": "json-ld", ".json": "json-ld", ".ttl": "turtle"}
"""Formats by the ending of a file."""


def format_of(path: Path) -> str:
    """Return the format in which a file is read or written, by its ending.

    Raises:
        DataError: If it has another ending.
    """
    name = ENDINGS.get(path.suffix.lower())
    if name is None:
        raise DataError(
            f"{path}: a graph's file must end in .jsonld, .json or .ttl, got {path.suffix!r}"
        )
    return name


def read_rdf(path: Path) -> rdflib.Graph:
    """Read a file, JSON-LD or Turtle by its ending, as an RDF graph.

    Raises:
        DataError: If the file cannot be read or is not in the format of its ending.
    """
    parse = {"json-ld": parse_jsonld, "turtle": parse_turtle}[format_of(path)]
    try:
        # Not read_text, which would turn a carriage return inside a Turtle literal into a newline.
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text: {error.reason} at byte {error.start}") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    return parse(text, where=str(path))


def parse_jsonld(text: str, *, where: str) -> rdflib.Graph:
    """Return a JSON-LD document as an RDF graph.

    Raises:
        DataError: If the text is not JSON-LD, or refers to a remote context.
    """
    try:
        _refuse_remote_contexts(json.loads(text), where)
    except json.JSONDecodeError as error:
        raise DataError(
            f"{where}:{error.lineno}: not JSON: {error.msg} (column {error.colno}); "
            "the file may be cut off"
        ) from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: not a personal graph: {error}") from error
    graph = rdflib.Graph(bind_namespaces="none")
    try:
        graph.parse(data=text, format="json-ld")
    except Exception as error:
        # On malformed JSON-LD, rdflib raises errors of many types, KeyError included.
        raise DataError(f"{where}: not JSON-LD: {type(error).__name__}: {error}") from error
    return graph


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


def parse_turtle(text: str, *, where: str) -> rdflib.Graph:
    """Return a Turtle document as an RDF graph.

    Raises:
        DataError: If the text is not Turtle.
    """
    graph = rdflib.Graph(bind_namespaces="none")
    try:
        graph.parse(data=text, format="turtle")
    except BadSyntax as error:
        reason = " ".join(error.message.split())
        raise DataError(
            f"{where}:{error.lines + 1}: not Turtle: {reason}; the file may be cut off"
        ) from error
    except Exception as error:
        # On malformed text, rdflib raises other errors than BadSyntax as well.
        raise DataError(f"{where}: not Turtle: {type(error).__name__}: {error}") from error
    return graph
