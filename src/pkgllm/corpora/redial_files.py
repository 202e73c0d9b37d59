"""Dialogues in ReDial's files, as a catalogue and one personal graph for each person who seeks.

Source: Li et al. 2018, "Towards Deep Conversational Recommendations", arXiv:1812.07617. In each
dialogue one person (the initiator) seeks a film and another (the respondent) recommends; then both
say of every film whether it was suggested, and whether the seeker has seen it and liked it
(0 no, 1 yes, 2 did not say).

A client is a seeker. For each film of a dialogue the seeker's own answer counts, and the
partner's only where the seeker gave none at all. The answer becomes one fact:

* liked 1 or 0: ``liked`` or ``disliked``; else seen 1 or 0: ``seen`` or ``unseen``; else
  suggested 1: ``suggested``; else there is no fact;
* over a person's history a stronger kind of fact (liked or disliked, then seen or unseen, then
  suggested) replaces a weaker one, and a later fact an equally strong earlier one. A fact that is
  stated again carries the time of the latest statement, or, on request, of the first;
* time is the index of the dialogue within the person's history, then the order in which films are
  first mentioned, as ``@`` and an id that the dialogue itself names. Dialogues are in the order of
  their ids where all ids are whole numbers (ReDial gives them out in order), else in the order of
  the files. Films that no message mentions come last, in the order of ``movieMentions``; dialogues
  without any mention are counted in the corpus's notes;
* a dialogue that stands twice counts once, and copies that differ are an error.
"""

import csv
import hashlib
import io
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pkgllm import json_text
from pkgllm.corpora.catalogue import Catalogue, Item, tell_apart
from pkgllm.corpora.clients import Corpus
from pkgllm.corpora.movie_facts import read_movie_facts
from pkgllm.corpora.sameness import STRENGTH
from pkgllm.corpora.settings import Restated
from pkgllm.errors import DataError
from pkgllm.files import expanded
from pkgllm.graph.personal_graph import Fact, Moment, PersonalGraph, Provenance, Relation, Source

TRAIN_FILE = "train_data.jsonl"
TEST_FILE = "test_data.jsonl"
MOVIES_FILE = "movies_with_mentions.csv"


@dataclass(frozen=True, slots=True)
class Judgement:
    """What one dialogue says about one film."""

    film: str
    relation: Relation
    source: Source
    position: int
    """Index of the film's first mention in the dialogue."""


@dataclass(frozen=True, slots=True)
class Dialogue:
    """What one dialogue says about its seeker."""

    where: str
    """Its place, for errors."""
    conversation: str
    client: str
    names: Mapping[str, str]
    """Names of the mentioned films by id, white space folded; only those that have one."""
    verdicts: tuple[Judgement, ...]
    mentioned: bool = True
    """Whether a message mentions one of its films, so that their order is known."""


def find_redial(configured: str | None) -> Path:
    """Find the folder of ReDial's files.

    When none is configured it is ``$PKGLLM_DATA/redial``, then ``./data/redial``.

    Raises:
        DataError: If there is no such folder; the message says where it was looked for.
    """
    if configured is not None:
        places = [expanded(configured)]
    else:
        root = os.environ.get("PKGLLM_DATA")
        places = [expanded(root) / "redial"] if root else []
        places.append(Path("data", "redial"))
    for place in places:
        if place.is_dir():
            return place
    looked = " and ".join(str(place) for place in places)
    raise DataError(
        f"no folder with ReDial's files: looked at {looked}; put {TRAIN_FILE} and {MOVIES_FILE} "
        "into one, or set corpus.folder or the environment variable PKGLLM_DATA"
    )


def read_redial(
    folder: Path, *, movie_facts: Path | None, restated_facts: Restated = "latest"
) -> Corpus:
    """Read ReDial's files: ``train_data.jsonl``, ``test_data.jsonl`` if there, and the films.

    Args:
        folder: Holds the files.
        movie_facts: Public facts of the films; when absent ``movie_kg/movies.json`` beside the
            folder, if that is there.
        restated_facts: Which statement gives a fact its time that was stated more than once.

    Raises:
        DataError: If a file is missing, cut off or not what it must be; the message names the
            file and the line.
    """
    digests: dict[str, str] = {}
    name_by_id = _read_movies(folder / MOVIES_FILE, digests)
    paths = [folder / TRAIN_FILE]
    if (folder / TEST_FILE).exists():
        paths.append(folder / TEST_FILE)
    dialogues = [dialogue for path in paths for dialogue in _read_dialogues(path, digests)]
    if movie_facts is None:
        beside = folder.absolute().parent / "movie_kg" / "movies.json"
        movie_facts = beside if beside.exists() else None
    public = {} if movie_facts is None else read_movie_facts(movie_facts)
    if movie_facts is not None:
        digests[movie_facts.name] = hashlib.sha256(movie_facts.read_bytes()).hexdigest()
    return assemble("redial", dialogues, name_by_id, public, digests, restated_facts=restated_facts)


def read_other_redial(folder: Path, restated_facts: Restated) -> Corpus:
    """Read another folder in ReDial's format: the folder itself, or its ``redial`` folder.

    Raises:
        DataError: If neither holds dialogues.
    """
    for place in (folder, folder / "redial"):
        if (place / TRAIN_FILE).is_file():
            corpus = read_redial(place, movie_facts=None, restated_facts=restated_facts)
            return replace(corpus, name=str(folder))
    raise DataError(f"--data {folder}: must hold {TRAIN_FILE} or redial/{TRAIN_FILE}, has neither")


def assemble(
    name: str,
    dialogues: Sequence[Dialogue],
    name_by_id: Mapping[str, str],
    public: Mapping[str, Mapping[str, tuple[str, ...]]],
    digests: Mapping[str, str],
    *,
    restated_facts: Restated = "latest",
) -> Corpus:
    """Put dialogues, in the order of the files, together as a corpus.

    Films that only dialogues name are added to the catalogue; a mention without a name is passed
    over as long as no answer is about it.

    Raises:
        DataError: If an answer is about a film without a name, or there is no film.
    """
    names = {film: text for dialogue in dialogues for film, text in dialogue.names.items()}
    names.update(name_by_id)
    for dialogue in dialogues:
        for verdict in dialogue.verdicts:
            if verdict.film not in names:
                raise DataError(
                    f"{dialogue.where}: film {verdict.film} of conversation "
                    f"{dialogue.conversation} must have a name, in {MOVIES_FILE} or in "
                    "movieMentions, got none"
                )
    items = tell_apart(Item(film, text, public.get(film, {})) for film, text in names.items())
    catalogue = Catalogue(items)
    history_by_client: dict[str, list[Dialogue]] = {}
    unique = _without_copies(dialogues)
    for dialogue in _in_order_of_time(unique):
        history_by_client.setdefault(dialogue.client, []).append(dialogue)
    graphs = tuple(
        _graph(client, history, catalogue, restated_facts)
        for client, history in history_by_client.items()
    )
    return Corpus(name, catalogue, graphs, digests, tuple(_notes(len(dialogues), unique)))


def _without_copies(dialogues: Sequence[Dialogue]) -> Sequence[Dialogue]:
    unique: dict[str, Dialogue] = {}
    for dialogue in dialogues:
        first = unique.setdefault(dialogue.conversation, dialogue)
        if replace(first, where=dialogue.where) != dialogue:
            raise DataError(
                f"{dialogue.where}: conversation {dialogue.conversation} stands at {first.where} "
                "too, and says something else there; keep one of them"
            )
    return tuple(unique.values())


def _notes(num_read: int, unique: Sequence[Dialogue]) -> Iterator[str]:
    if copies := num_read - len(unique):
        yield f"Copies: {copies} of {num_read} dialogues are copies of others and count once."
    if lost := sum(not dialogue.mentioned for dialogue in unique):
        yield (
            f"Order: {lost} of {len(unique)} dialogues mention none of their films as @id; these "
            "are in the order of movieMentions."
        )


def _in_order_of_time(dialogues: Sequence[Dialogue]) -> Sequence[Dialogue]:
    if all(re.fullmatch(r"-?\d+", dialogue.conversation) for dialogue in dialogues):
        return sorted(dialogues, key=lambda dialogue: int(dialogue.conversation))
    return dialogues


def _graph(
    client: str, history: Iterable[Dialogue], catalogue: Catalogue, restated: Restated
) -> PersonalGraph:
    fact_by_film: dict[str, Fact] = {}
    for session, dialogue in enumerate(history):
        for verdict in dialogue.verdicts:
            held = fact_by_film.get(verdict.film)
            if held is not None and (
                STRENGTH[held.relation] > STRENGTH[verdict.relation]
                or (restated == "first" and held.relation == verdict.relation)
            ):
                continue
            fact_by_film[verdict.film] = Fact(
                relation=verdict.relation,
                tail=verdict.film,
                name=catalogue[verdict.film].name,
                time=Moment(session, verdict.position),
                provenance=Provenance(verdict.source, f"conversation/{dialogue.conversation}"),
            )
    return PersonalGraph(client, tuple(fact_by_film.values()))


def read_dialogue(record: object, *, where: str) -> Dialogue:
    """Check one dialogue in ReDial's format and take from it what it says about its seeker.

    Raises:
        DataError: If a key is missing or a value is of the wrong kind.
    """
    if not isinstance(record, dict):
        raise DataError(f"{where}: a dialogue must be a JSON object, got {record!r:.80}")
    conversation = _identifier(record, "conversationId", where)
    client = _identifier(record, "initiatorWorkerId", where)
    mentions = _by_film(record, "movieMentions", where)
    own = _by_film(record, "initiatorQuestions", where)
    partner = _by_film(record, "respondentQuestions", where)
    films = dict.fromkeys([*mentions, *own, *partner])
    verdicts = []
    mentioned = _mentioned(films, record, where)
    for position, film in enumerate(dict.fromkeys([*mentioned, *films])):
        source = "own_answer" if film in own else "partner_answer"
        answer = own[film] if film in own else partner.get(film)
        relation = None if answer is None else _relation(answer, f"{where}: film {film}")
        if relation is not None:
            verdicts.append(Judgement(film, relation, source, position))
    names = _names(mentions, where)
    known = bool(mentioned) or not verdicts
    return Dialogue(where, conversation, client, names, tuple(verdicts), known)


def _identifier(record: Mapping[str, object], key: str, where: str) -> str:
    value = record.get(key)
    if isinstance(value, bool) or not isinstance(value, int | str) or value == "":
        raise DataError(f"{where}: {key} must be a number or a text, got {_given(record, key)}")
    return str(value)


def _by_film(record: Mapping[str, object], key: str, where: str) -> Mapping[str, object]:
    value = record.get(key)
    if value == []:
        return {}
    if not isinstance(value, dict):
        raise DataError(f"{where}: {key} must be an object by film id, got {_given(record, key)}")
    return value


def _given(record: Mapping[str, object], key: str) -> str:
    return f"{record[key]!r:.80}" if key in record else "no such key"


def _names(mentions: Mapping[str, object], where: str) -> Mapping[str, str]:
    names = {}
    for film, name in mentions.items():
        if name is None:
            continue
        if not isinstance(name, str):
            raise DataError(f"{where}: film {film}: its name must be a text, got {name!r:.80}")
        if folded := fold(name):
            names[film] = folded
    return names


def fold(text: str) -> str:
    """Return a text with every run of white space as one blank, and none at its ends.

    Example:
        >>> fold("Heat   (1995) ")
        'Heat (1995)'
    """
    return " ".join(text.split())


def _relation(answer: object, where: str) -> Relation | None:
    if not isinstance(answer, dict):
        raise DataError(f"{where}: an answer must be an object, got {answer!r:.80}")
    for key in ("suggested", "seen", "liked"):
        value = answer.get(key)
        if isinstance(value, bool) or not isinstance(value, int) or value not in (0, 1, 2):
            raise DataError(f"{where}: {key} must be 0, 1 or 2, got {_given(answer, key)}")
    if answer["liked"] != 2:
        return "liked" if answer["liked"] == 1 else "disliked"
    if answer["seen"] != 2:
        return "seen" if answer["seen"] == 1 else "unseen"
    return "suggested" if answer["suggested"] == 1 else None


def _mentioned(films: Iterable[str], record: Mapping[str, object], where: str) -> list[str]:
    """Return the films that messages mention, in order of their first mention."""
    messages = record.get("messages")
    if not isinstance(messages, list):
        raise DataError(f"{where}: messages must be a list, got {_given(record, 'messages')}")
    texts = []
    for message in messages:
        text = message.get("text") if isinstance(message, dict) else None
        if not isinstance(text, str):
            raise DataError(f"{where}: a message must have a text, got {message!r:.80}")
        texts.append(text)
    # The longest first; a number ends where its digits end, any other id where its word ends.
    ids = sorted(filter(None, films), key=len, reverse=True)
    ends = [re.escape(film) + (r"(?!\d)" if film[-1].isdigit() else r"(?!\w)") for film in ids]
    if not ends:
        return []
    matches = re.findall(f"@({'|'.join(ends)})", "\n".join(texts))
    return list(dict.fromkeys(matches))


def _read(path: Path, digests: dict[str, str]) -> bytes:
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise DataError(
            f"{path}: no such file; ReDial's folder must hold {TRAIN_FILE} and {MOVIES_FILE}"
        ) from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    digests[path.name] = hashlib.sha256(content).hexdigest()
    return content


def _read_dialogues(path: Path, digests: dict[str, str]) -> Iterator[Dialogue]:
    empty = True
    for line_num, line in enumerate(_read(path, digests).splitlines(), start=1):
        if not line.strip():
            continue
        where = f"{path}:{line_num}"
        try:
            record = json_text.loads(line.decode("utf-8-sig"))
        except ValueError as error:
            raise DataError(f"{where}: each line must be one JSON object: {error}") from error
        yield read_dialogue(record, where=where)
        empty = False
    if empty:
        raise DataError(f"{path}: must hold one dialogue a line, got an empty file")


def _read_movies(path: Path, digests: dict[str, str]) -> dict[str, str]:
    try:
        text = _read(path, digests).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text: {error.reason} at byte {error.start}") from error
    rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    names: dict[str, str] = {}
    try:
        header = next(rows, [])
        if not {"movieId", "movieName"} <= set(header):
            raise DataError(
                f"{path}:1: the first line must name the columns movieId and movieName, "
                f"got {header!r:.80}"
            )
        for row in rows:
            where = f"{path}:{rows.line_num}"
            if len(row) != len(header):
                raise DataError(
                    f"{where}: a film must have {len(header)} columns, got {len(row)}; "
                    "the file may be cut off: fetch it again"
                )
            film, name = row[header.index("movieId")].strip(), fold(row[header.index("movieName")])
            if not film or not name:
                raise DataError(f"{where}: film {film!r} must have an id and a name, got {name!r}")
            if film in names:
                raise DataError(f"{where}: film {film} stands twice; an id must stand once")
            names[film] = name
    except csv.Error as error:
        raise DataError(
            f"{path}:{rows.line_num}: not CSV: {error}; the file may be cut off: fetch it again"
        ) from error
    return names
