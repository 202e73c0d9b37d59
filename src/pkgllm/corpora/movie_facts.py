"""Public facts about films: genre, director, writer and star, from ``movies.json``."""

from collections.abc import Mapping
from pathlib import Path

from pkgllm.corpora.catalogue_file import read_json_object
from pkgllm.errors import DataError

FACT_RELATIONS = ("genre", "director", "writer", "star")


def read_movie_facts(path: Path) -> Mapping[str, Mapping[str, tuple[str, ...]]]:
    """Read the public facts of films.

    The file is one JSON object: film id -> object, whose ``genre``, ``director``, ``writer`` and
    ``star`` are lists of texts. An absent relation means that nothing is known; other keys are
    not read. White space in values is folded.

    Returns:
        Values by relation by film id; only relations with at least one value.

    Raises:
        DataError: If the file cannot be read or has another shape.
    """
    content = read_json_object(path, what="facts by film id")
    return {film: _facts(facts, f"{path}: film {film}") for film, facts in content.items()}


def _facts(facts: object, where: str) -> Mapping[str, tuple[str, ...]]:
    if not isinstance(facts, dict):
        raise DataError(f"{where}: facts must be an object, got {facts!r}")
    kept_facts = {}
    for relation in FACT_RELATIONS:
        values = facts.get(relation, [])
        if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
            raise DataError(f"{where}: {relation} must be a list of texts, got {values!r}")
        folded = (" ".join(value.split()) for value in values)
        if kept := tuple(dict.fromkeys(value for value in folded if value)):
            kept_facts[relation] = kept
    return kept_facts
