"""Public text of the small world, on which the base model is pretrained.

Film facts and plots, lists of films that share a property, questions and answers in chat format,
and a small share of taste documents. Those are about other people, whose taste is drawn in the same
way from other random streams, so no document is about a client.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from pkgllm.corpora.catalogue import Item, tell_apart
from pkgllm.graph.personal_graph import RELATIONS, Relation
from pkgllm.randomness import stream
from tools.small_world import write_text
from tools.small_world_model import (
    Film,
    draw_verdicts,
    invent_films,
    invent_taste,
)
from tools.small_world_names import GENRES, PLACES

T = TypeVar("T")

_REQUESTS = ("Recommend movies to me.", "What should I watch next?", "Suggest a movie.")
_INSTRUCTIONS = (
    "",
    "Recommend movies that suit the user.",
    "You know what the user thinks of some movies. Recommend others.",
    "You recommend movies. What is known of the user:",
)
_PROSE: Mapping[Relation, str] = {
    "liked": "The user liked",
    "disliked": "The user disliked",
    "seen": "The user has seen",
    "unseen": "The user has not seen",
    "suggested": "The user was told about",
}
_SHORTEST_HISTORY, _LONGEST_HISTORY = 4, 36


def public_documents(
    seed: int, *, num_films: int = 300, num_documents: int = 20_000, personal_share: float = 0.005
) -> Iterator[str]:
    """Yield the documents of the public text, in random order.

    Args:
        seed: Of the world.
        num_films: Of the world.
        num_documents: Number of documents.
        personal_share: Share of taste documents, from which the base model learns about people.

    Raises:
        ValueError: If ``personal_share`` is not between 0 and 1.

    Example:
        >>> documents = list(public_documents(0, num_documents=3))
        >>> documents == list(public_documents(0, num_documents=3))
        True
    """
    if not 0 <= personal_share <= 1:
        raise ValueError(f"personal_share must be between 0 and 1, got {personal_share}")
    films = invent_films(seed, num_films)
    writer = _Writer(films)
    for index in range(num_documents):
        generator = stream(seed, "small_world", "public", index)
        personal = generator.random() < personal_share
        yield writer.taste(generator) if personal else writer.facts(generator)


def write_public_text(
    folder: Path,
    *,
    seed: int,
    num_films: int = 300,
    num_documents: int = 20_000,
    personal_share: float = 0.005,
) -> Path:
    """Write :func:`public_documents` to ``public_text.jsonl`` in a folder and return its path."""
    path = folder / "public_text.jsonl"
    documents = public_documents(
        seed, num_films=num_films, num_documents=num_documents, personal_share=personal_share
    )
    write_text(path, "".join(json.dumps({"text": text}) + "\n" for text in documents))
    return path


def chat(*turns: tuple[str, str]) -> str:
    """Write (role, content) turns in ChatML, as the base model's chat template does."""
    return "".join(f"<|im_start|>{role}\n{content}<|im_end|>\n" for role, content in turns)


def write_verdicts(verdicts: Sequence[tuple[Relation, str]], form: str) -> str:
    """Write (relation, film name) pairs in the prompt form ``triples``, ``prose`` or ``jsonld``."""
    if form == "triples":
        return "\n".join(f"(user, {relation}, {name})" for relation, name in verdicts)
    names_by_relation = {
        relation: names
        for relation in RELATIONS
        if (names := [name for other, name in verdicts if other == relation])
    }
    if form == "prose":
        return " ".join(
            f"{_PROSE[relation]}: {'; '.join(names)}."
            for relation, names in names_by_relation.items()
        )
    graph: dict[str, object] = {"@context": "https://schema.org", "@type": "Person"}
    for relation, names in names_by_relation.items():
        graph[relation] = [{"name": name} for name in names]
    return json.dumps(graph, ensure_ascii=False, separators=(",", ":"))


class _Writer:
    """Writes random documents about one catalogue."""

    def __init__(self, films: Sequence[Film]) -> None:
        self._films = films
        self._name_by_id = {
            item.id: item.name for item in tell_apart(Item(film.id, film.name) for film in films)
        }
        self._kinds = (
            self._sentences,
            self._card,
            self._question,
            self._request,
            self._similar,
            self._shelf,
            self._programme,
            self._programme,
        )

    def facts(self, generator: np.random.Generator) -> str:
        """Write public facts of the films."""
        film = _pick(self._films, generator)
        return _pick(self._kinds, generator)(film, generator)

    def taste(self, generator: np.random.Generator) -> str:
        """Write the opinions of one person who is not a client, and what they like next."""
        person = invent_taste(self._films, generator)
        count = int(generator.integers(_SHORTEST_HISTORY, _LONGEST_HISTORY + 1))
        verdicts = draw_verdicts(self._films, person, count, generator)
        liked = [index for index, v in enumerate(verdicts) if v.relation == "liked" and index]
        if not liked:
            return self.facts(generator)
        target = _pick(liked[len(liked) // 2 :], generator)
        known = write_verdicts(
            [(v.relation, self._name(v.film)) for v in verdicts[:target]],
            _pick(("triples", "prose", "jsonld"), generator),
        )
        instruction = _pick(_INSTRUCTIONS, generator)
        return chat(
            ("system", f"{instruction}\n{known}" if instruction else known),
            ("user", _pick(_REQUESTS, generator)),
            ("assistant", self._name(verdicts[target].film)),
        )

    def _name(self, film: Film) -> str:
        return self._name_by_id[film.id]

    def _names(self, films: Sequence[Film]) -> str:
        return "; ".join(self._name(film) for film in films)

    def _sentences(self, film: Film, generator: np.random.Generator) -> str:
        name, genres = self._name(film), " and ".join(film.genres)
        stars, writers = " and ".join(film.stars), " and ".join(film.writers)
        return _pick(
            (
                f"{name} is a {genres} movie directed by {film.director}. It stars {stars}. "
                f"{film.plot}",
                f"{film.director} directed {name}, a {genres} movie of the {film.decade}s "
                f"with {stars}. {writers} wrote it.",
                f"{film.plot} That is {name}, a {genres} movie by {film.director}.",
                f"{stars} can be seen in {name}, a {genres} movie.",
            ),
            generator,
        )

    def _card(self, film: Film, generator: np.random.Generator) -> str:
        lines = [
            f"Genre: {', '.join(film.genres)}",
            f"Director: {film.director}",
            f"Writer: {', '.join(film.writers)}",
            f"Stars: {', '.join(film.stars)}",
            f"Plot: {film.plot}",
        ]
        shown = [lines[int(i)] for i in generator.permutation(len(lines))[:4]]
        return "\n".join([self._name(film), *shown])

    def _question(self, film: Film, generator: np.random.Generator) -> str:
        name = self._name(film)
        question, answer = _pick(
            (
                (f"What kind of movie is {name}?", ", ".join(film.genres)),
                (f"Who directed {name}?", film.director),
                (f"Who stars in {name}?", ", ".join(film.stars)),
                (f"What is {name} about?", film.plot),
            ),
            generator,
        )
        return chat(("user", question), ("assistant", answer))

    def _request(self, film: Film, generator: np.random.Generator) -> str:
        request = _pick(
            (
                f"Recommend a {_pick(film.genres, generator)} movie.",
                f"Recommend a movie by {film.director}.",
                f"Recommend a movie with {_pick(film.stars, generator)}.",
                f"Recommend a movie from the {film.decade}s.",
            ),
            generator,
        )
        return chat(("user", request), ("assistant", self._name(film)))

    def _similar(self, film: Film, generator: np.random.Generator) -> str:
        others = self._sharing(film, generator)
        if len(others) == 1:
            return self._card(film, generator)
        return f"Movies like {self._name(others[0])}: {self._names(others[1:6])}."

    def _shelf(self, film: Film, generator: np.random.Generator) -> str:
        shared = _pick(_SHARED, generator)
        others = self._sharing(film, generator, shared)
        longest = int(generator.integers(3, 19))
        heading = f"{shared(film)[0]}: "
        if shared is not _by_decade:
            heading = _pick((heading, "Movies that go together: ", ""), generator)
        return f"{heading}{self._names(others[:longest])}."

    def _programme(self, film: Film, generator: np.random.Generator) -> str:
        """Write the programme of a festival of two genres: a mixture that is nobody's taste."""
        themes = {film.genres[0], _pick(GENRES, generator)}
        fitting = [other for other in self._films if themes & set(other.genres)]
        longest = int(generator.integers(4, 33))
        shown = [fitting[int(i)] for i in generator.permutation(len(fitting))[:longest]]
        year = max(other.year for other in shown)
        return f"Shown at the {year} festival in {_pick(PLACES, generator)}: {self._names(shown)}."

    def _sharing(
        self,
        film: Film,
        generator: np.random.Generator,
        shared: Callable[[Film], tuple[str, ...]] | None = None,
    ) -> list[Film]:
        same = shared or _pick(_SHARED[:2], generator)
        value = same(film)[0]
        others = [other for other in self._films if value in same(other)]
        return [others[int(i)] for i in generator.permutation(len(others))]


def _by_genre(film: Film) -> tuple[str, ...]:
    return tuple(f"{genre} movies" for genre in film.genres)


def _by_director(film: Film) -> tuple[str, ...]:
    return (f"Movies directed by {film.director}",)


def _by_star(film: Film) -> tuple[str, ...]:
    return tuple(f"Movies with {star}" for star in film.stars)


def _by_decade(film: Film) -> tuple[str, ...]:
    return (f"Movies of the {film.decade}s",)


_SHARED: tuple[Callable[[Film], tuple[str, ...]], ...] = (
    _by_genre,
    _by_director,
    _by_star,
    _by_decade,
)


def _pick(options: Sequence[T], generator: np.random.Generator) -> T:
    return options[int(generator.integers(len(options)))]
