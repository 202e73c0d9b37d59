"""JSON-LD and Turtle, from text to an RDF graph, without any look at the network."""

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
    found = ENDINGS.get(path.suffix.lower())
    if found is None:
        raise DataError(
            f"{path}: a graph's file must end in .jsonld, .json or .ttl, got {path.suffix!r}"
        )
    return found


def read_rdf(path: Path) -> rdflib.Graph:
    """Read what a file says, JSON-LD or Turtle by its ending.

    Raises:
        DataError: If the file cannot be read or is not what its ending says.
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
    """Return what a JSON-LD document says.

    Raises:
        DataError: If the text is not JSON-LD, or asks for a remote context.
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
    found = rdflib.Graph(bind_namespaces="none")
    try:
        found.parse(data=text, format="json-ld")
    except Exception as error:
        # rdflib meets malformed JSON-LD with whatever its code runs into, KeyError included.
        raise DataError(f"{where}: not JSON-LD: {type(error).__name__}: {error}") from error
    return found


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
    """Return what a Turtle document says.

    Raises:
        DataError: If the text is not Turtle.
    """
    found = rdflib.Graph(bind_namespaces="none")
    try:
        found.parse(data=text, format="turtle")
    except BadSyntax as error:
        reason = " ".join(error.message.split())
        raise DataError(
            f"{where}:{error.lines + 1}: not Turtle: {reason}; the file may be cut off"
        ) from error
    except Exception as error:
        # Beside BadSyntax, rdflib lets errors of its own code through on malformed text.
        raise DataError(f"{where}: not Turtle: {type(error).__name__}: {error}") from error
    return found
