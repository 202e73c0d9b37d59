"""Write the small world in ReDial's file formats, irregularities included.

The irregularities are a test of readers: irregular white space in names, two films that share title
and year, films without public facts, dialogues in which one side did not answer (an empty answer is
a list, not an object), single films left out of an answer, and a mention without a name.
"""

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pkgllm.files import cannot, write_atomically
from pkgllm.graph.personal_graph import Relation
from pkgllm.randomness import stream
from tools.small_world_model import (
    Film,
    Verdict,
    draw_verdicts,
    invent_films,
    invent_taste,
)

_FEWEST_LIKED = 5
_FIRST_CONVERSATION, _FIRST_MESSAGE = 1001, 50_001
_SEEKER_UNANSWERED, _RECOMMENDER_UNANSWERED, _FILM_UNANSWERED = 0.03, 0.02, 0.02
_ANSWERS: Mapping[Relation, tuple[int, int]] = {
    "liked": (1, 1),
    "disliked": (1, 0),
    "seen": (1, 2),
    "unseen": (0, 2),
    "suggested": (2, 2),
}
"""(seen, liked) in ReDial's code: 0 no, 1 yes, 2 no answer."""
_OPENINGS = ("Hi! I am looking for a movie.", "Hello, what can you recommend?", "Good evening!")
_OWN: Mapping[Relation, str] = {
    "liked": "I really liked @{}.",
    "disliked": "I could not stand @{}.",
    "seen": "I saw @{} some time ago.",
    "unseen": "I have not seen @{} yet.",
    "suggested": "Somebody spoke of @{}.",
}
_OFFERS = ("Have you seen @{}?", "You could try @{}.", "How about @{}?")
_REPLIES: Mapping[Relation, str] = {
    "liked": "Yes, that is just my kind of movie.",
    "disliked": "No, that one is not for me.",
    "seen": "I have seen it.",
    "unseen": "Not yet.",
    "suggested": "I will think about it.",
}


def generate_small_world(
    folder: Path, *, seed: int, num_films: int = 300, num_people: int = 120
) -> None:
    """Write ``redial/`` and ``movie_kg/`` below a folder; the same arguments give the same bytes.

    Every person is the seeker of three to eight conversations and likes at least five films. The
    mentions in ``movies_with_mentions.csv`` are drawn from the films' popularity, not from clients.

    Args:
        folder: Created if missing; its files are replaced atomically.
        seed: Of the world.
        num_films: Films of the catalogue.
        num_people: Seekers, who also recommend to each other; at least two.

    Raises:
        RunError: If a file cannot be written.
        ValueError: If a number is out of range.
    """
    if num_people < 2:
        raise ValueError(f"num_people must be at least 2, got {num_people}")
    films = invent_films(seed, num_films)
    names = _untidy_names(films, stream(seed, "small_world", "names"))
    # The first two films have no public facts, as some of ReDial.
    facts = {film.id: _facts(film, index) for index, film in enumerate(films) if index > 1}
    dialogues = _dialogues(films, names, seed, num_people)
    contents = {
        "redial/movies_with_mentions.csv": _csv(films, names, seed),
        "redial/train_data.jsonl": "".join(json.dumps(dialogue) + "\n" for dialogue in dialogues),
        "movie_kg/movies.json": json.dumps(facts, indent=1) + "\n",
    }
    for name, content in contents.items():
        write_text(folder / name, content)


def write_text(path: Path, content: str) -> None:
    """Write a text file atomically, and create its folder.

    Raises:
        RunError: If it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot("make", path.parent, error) from error
    write_atomically(path, content)


@dataclass(frozen=True, slots=True)
class _Conversation:
    seeker: int
    recommender: int
    verdicts: tuple[Verdict, ...]


def _conversations(films: Sequence[Film], seed: int, num_people: int) -> Iterable[_Conversation]:
    """Yield all conversations in order of time: every person's own order, interleaved."""
    histories = {
        person: _history(films, stream(seed, "small_world", "person", person))
        for person in range(num_people)
    }
    order = stream(seed, "small_world", "order")
    turns = order.permutation([p for p, parts in histories.items() for _ in parts])
    remaining = {person: iter(parts) for person, parts in histories.items()}
    for seeker in map(int, turns):
        recommender = (seeker + int(order.integers(1, num_people))) % num_people
        yield _Conversation(seeker, recommender, next(remaining[seeker]))


def _history(films: Sequence[Film], generator: np.random.Generator) -> list[tuple[Verdict, ...]]:
    """Draw one person's conversations; a film sometimes occurs again."""
    while True:
        taste = invent_taste(films, generator)
        lengths = generator.integers(5, 9, size=int(generator.integers(3, 9)))
        verdicts = draw_verdicts(films, taste, int(lengths.sum()), generator)
        if sum(verdict.relation == "liked" for verdict in verdicts) >= _FEWEST_LIKED:
            break
    ends = np.cumsum(lengths)
    parts = []
    for start, end in zip(ends - lengths, ends, strict=True):
        part = verdicts[start:end]
        if start and generator.random() < 0.3:
            part = (*part, verdicts[int(generator.integers(start))])
        if part:
            parts.append(part)
    return parts


def _dialogues(
    films: Sequence[Film], names: Mapping[str, str], seed: int, num_people: int
) -> Iterable[Mapping[str, Any]]:
    next_message = _FIRST_MESSAGE
    for index, conversation in enumerate(_conversations(films, seed, num_people)):
        generator = stream(seed, "small_world", "dialogue", index)
        offers = [bool(n and generator.random() < 0.6) for n in range(len(conversation.verdicts))]
        messages = _messages(conversation, offers, generator)
        mentions: dict[str, str | None] = {
            verdict.film.id: names[verdict.film.id] for verdict in conversation.verdicts
        }
        if index == 1:
            mentions[conversation.verdicts[0].film.id] = None
        own, partner = _answers(conversation, offers, generator)
        yield {
            "movieMentions": mentions,
            "respondentQuestions": partner or [],
            "messages": [
                {**message, "messageId": next_message + number}
                for number, message in enumerate(messages)
            ],
            "conversationId": str(_FIRST_CONVERSATION + index),
            "respondentWorkerId": conversation.recommender,
            "initiatorWorkerId": conversation.seeker,
            "initiatorQuestions": own or [],
        }
        next_message += len(messages)


def _answers(
    conversation: _Conversation, offers: Sequence[bool], generator: np.random.Generator
) -> tuple[dict[str, dict[str, int]], dict[str, dict[str, int]]]:
    """Return the seeker's and the recommender's answers; at most one of them is empty."""
    answers = {}
    for verdict, offered in zip(conversation.verdicts, offers, strict=True):
        seen, liked = _ANSWERS[verdict.relation]
        # Without an answer about seen and liked, there is a fact only if it was suggested.
        suggested = int(offered or verdict.relation == "suggested")
        answers[verdict.film.id] = {"suggested": suggested, "seen": seen, "liked": liked}
    chance = generator.random()
    if chance < _SEEKER_UNANSWERED:
        return {}, answers
    if chance > 1 - _RECOMMENDER_UNANSWERED:
        return answers, {}
    own = {
        film: answer for film, answer in answers.items() if generator.random() >= _FILM_UNANSWERED
    }
    return own or answers, answers


def _messages(
    conversation: _Conversation, offers: Sequence[bool], generator: np.random.Generator
) -> list[dict[str, Any]]:
    lines = [(conversation.seeker, _OPENINGS[int(generator.integers(len(_OPENINGS)))])]
    for verdict, offered in zip(conversation.verdicts, offers, strict=True):
        film = verdict.film.id
        if offered:
            offer = _OFFERS[int(generator.integers(len(_OFFERS)))]
            lines.append((conversation.recommender, offer.format(film)))
            lines.append((conversation.seeker, _REPLIES[verdict.relation]))
        else:
            lines.append((conversation.seeker, _OWN[verdict.relation].format(film)))
    times = np.cumsum(generator.integers(5, 60, size=len(lines)))
    return [
        {"timeOffset": int(time), "text": text, "senderWorkerId": sender}
        for time, (sender, text) in zip(times, lines, strict=True)
    ]


def _untidy_names(films: Sequence[Film], generator: np.random.Generator) -> Mapping[str, str]:
    """Return the names with an extra white space in one of seven."""

    def untidy(name: str) -> str:
        return (
            name.replace(" (", "  ("),
            name.replace(" ", "  ", 1),
            name + " ",
        )[int(generator.integers(3))]

    return {
        film.id: untidy(film.name) if generator.random() < 1 / 7 else film.name for film in films
    }


def _csv(films: Sequence[Film], names: Mapping[str, str], seed: int) -> str:
    generator = stream(seed, "small_world", "mentions")
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(("movieId", "movieName", "nbMentions"))
    for film in films:
        writer.writerow((film.id, names[film.id], int(generator.poisson(10 * film.popularity))))
    return text.getvalue()


def _facts(film: Film, index: int) -> Mapping[str, Any]:
    return {
        "name": film.name,
        "genre": film.genres,
        "plot": film.plot,
        "director": [film.director],
        "writer": film.writers,
        "star": film.stars,
        "imdb_id": f"invented{index:06d}",
    }
