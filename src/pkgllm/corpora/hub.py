"""ReDial as a data set of the Hugging Face hub, such as ``community-datasets/re_dial``.

The hub holds the same dialogues in another shape: where ReDial's files have objects by film id,
the hub has lists of records that carry the id as ``movieId``. There is no list of films, so the
catalogue is the films that the dialogues name.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pkgllm.corpora.clients import Corpus
from pkgllm.corpora.movie_facts import read_movie_facts
from pkgllm.corpora.redial_files import Dialogue, assemble, read_dialogue
from pkgllm.corpora.settings import Restated
from pkgllm.errors import DataError

_KEYS = ("movieMentions", "initiatorQuestions", "respondentQuestions")


def read_hub(
    name: str, *, movie_facts: Path | None = None, restated_facts: Restated = "latest"
) -> Corpus:
    """Read ReDial from the hub, or from its cache on this machine.

    Args:
        name: The data set, for example ``community-datasets/re_dial``.
        movie_facts: Public facts of the films, as for the files; none when absent.
        restated_facts: As for the files.

    Raises:
        DataError: If the data set cannot be loaded, or is not ReDial's.
    """
    import datasets

    try:
        splits = datasets.load_dataset(name)
    except Exception as error:
        # The hub's client lets through errors of several network libraries.
        reason = " ".join(str(error).split())
        raise DataError(
            f"hub data set {name}: cannot be loaded: {reason}; check the name and the network, "
            "or set corpus.folder to ReDial's own files"
        ) from error
    dialogues: list[Dialogue] = []
    digests = {}
    for split, records in splits.items():
        read, digests[split] = read_records(records, where=f"{name}/{split}")
        dialogues.extend(read)
    public = {} if movie_facts is None else read_movie_facts(movie_facts)
    return assemble("redial", dialogues, {}, public, digests, restated_facts=restated_facts)


def read_records(
    records: Iterable[Mapping[str, Any]], *, where: str
) -> tuple[tuple[Dialogue, ...], str]:
    """Read dialogues in the hub's shape.

    Returns:
        The dialogues, and the SHA-256 of the rows, hexadecimal.

    Raises:
        DataError: If a row is not a dialogue.
    """
    digest = hashlib.sha256()
    dialogues = []
    for index, record in enumerate(records):
        digest.update(json.dumps(record, sort_keys=True).encode() + b"\n")
        place = f"{where}:{index}"
        dialogues.append(read_dialogue(to_file_format(record, where=place), where=place))
    return tuple(dialogues), digest.hexdigest()


def to_file_format(record: Mapping[str, Any], *, where: str) -> dict[str, Any]:
    """Return a hub record as the object that ReDial's file holds on one line.

    Raises:
        DataError: If a list by film is not one.

    Example:
        >>> record = {"movieMentions": [{"movieId": "7", "movieName": "Heat (1995)"}],
        ...           "initiatorQuestions": [], "respondentQuestions": []}
        >>> to_file_format(record, where="row 0")["movieMentions"]
        {'7': 'Heat (1995)'}
    """
    converted = dict(record)
    for key in _KEYS:
        rows = record.get(key)
        if not isinstance(rows, list) or not all(
            isinstance(row, Mapping) and "movieId" in row for row in rows
        ):
            raise DataError(
                f"{where}: {key} must be a list of records with a movieId, got {rows!r:.80}"
            )
        converted[key] = {
            str(row["movieId"]): row.get("movieName") if key == "movieMentions" else dict(row)
            for row in rows
        }
    return converted
