"""A catalogue of any domain from one JSON file."""

import json
from collections.abc import Mapping
from pathlib import Path

from pkgllm import json_text
from pkgllm.corpora.catalogue import Catalogue, Item
from pkgllm.errors import DataError
from pkgllm.files import write_atomically
from pkgllm.graph.personal_graph import MOVIE
from pkgllm.graph.vocabulary import item_class_iri

CATALOGUE = "catalogue.json"
"""Name of the file in a folder of clients."""


def read_catalogue_file(path: Path) -> Catalogue:
    """Read the items of a domain with their public facts.

    The file is one JSON object; its ``items`` are objects with ``id``, ``name`` and, where anything
    is known, ``facts``: lists of texts by relation, whatever the domain calls its relations. What
    they are, a class of schema.org such as ``Recipe``, is the file's ``item_class`` or an item's
    own; without either they are films. Other keys are not read, so the file that ``pkgllm data
    build`` writes for clients is one of these.

    Raises:
        DataError: If the file cannot be read or holds something else, or an id or a name stands
            twice.
    """
    record = read_json_object(path, what="a catalogue")
    items = record.get("items")
    if not isinstance(items, list):
        raise DataError(f"{path}: items must be a list, got {items!r:.60}")
    of_file = _item_class(record.get("item_class", MOVIE), str(path))
    read = [
        _item(item, of_file, f"{path}: item {number}") for number, item in enumerate(items, start=1)
    ]
    try:
        return Catalogue(read)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error


def write_catalogue_file(catalogue: Catalogue, path: Path) -> None:
    """Write the items with their public facts, as :func:`read_catalogue_file` reads them.

    Raises:
        RunError: If it cannot be written.
    """
    items = [
        {
            "id": item.id,
            "name": item.name,
            "facts": {r: list(v) for r, v in item.facts.items()},
            **({} if item.item_class == MOVIE else {"item_class": item.item_class}),
        }
        for item in catalogue
    ]
    text = json.dumps({"items": items}, ensure_ascii=False, indent=0)
    write_atomically(path, text + "\n")


def read_json_object(path: Path, *, what: str) -> dict[str, object]:
    """Read a file that must hold one JSON object.

    Args:
        path: The file, in UTF-8.
        what: What it holds, for messages.

    Raises:
        DataError: If it cannot be read, is not JSON, has a key twice or half a character, or holds
            something else.
    """
    try:
        record = json_text.loads(path.read_bytes().decode("utf-8-sig"))
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text: {error.reason} at byte {error.start}") from error
    except json_text.JsonError as error:
        raise DataError(f"{path}:{error.line}: {error}") from error
    except ValueError as error:
        raise DataError(f"{path}: not {what}: {error}") from error
    if not isinstance(record, dict):
        raise DataError(f"{path}: {what} must be one JSON object, got {record!r:.60}")
    return record


def _item(record: object, of_file: str, where: str) -> Item:
    if not isinstance(record, dict):
        raise DataError(f"{where}: must be an object, got {record!r:.60}")
    texts = [record.get(key) for key in ("id", "name")]
    for key, text in zip(("id", "name"), texts, strict=True):
        if not isinstance(text, str) or not text.strip():
            raise DataError(f"{where}: {key} must be a text, got {text!r:.60}")
    item_id, name = map(str, texts)
    item_class = _item_class(record.get("item_class", of_file), where)
    return Item(item_id, name, _facts(record.get("facts", {}), where), item_class)


def _item_class(name: object, where: str) -> str:
    try:
        item_class_iri(str(name))
    except ValueError as error:
        raise DataError(f"{where}: item_class: {error}") from error
    return str(name)


def _facts(record: object, where: str) -> Mapping[str, tuple[str, ...]]:
    if not isinstance(record, dict):
        raise DataError(f"{where}: facts must be an object, got {record!r:.60}")
    for relation, values in record.items():
        if not isinstance(values, list) or not all(isinstance(v, str) and v for v in values):
            raise DataError(f"{where}: {relation} must be a list of texts, got {values!r:.60}")
    return {relation: tuple(values) for relation, values in record.items() if values}
