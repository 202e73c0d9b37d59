"""The model of the small world: invented films, and people whose verdicts follow their taste.

A film has genres, people and a year; a person likes some genres, directors, stars and a decade, and
dislikes others. Which films a person meets and how they judge them both depend on the fit of film
and taste, and popular films are met more often. So earlier likes predict later ones, and popularity
is a part of the signal.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from pkgllm.graph.personal_graph import Relation
from pkgllm.randomness import stream
from tools.small_world_names import (
    FAMILY_NAMES,
    FIRST_WORDS,
    GENRES,
    GIVEN_NAMES,
    HEROES,
    PLACES,
    QUESTS,
    SECOND_WORDS,
)

DECADES = tuple(range(1950, 2020, 10))

_FILMS_PER_DIRECTOR = 7
_FILMS_PER_STAR = 6
_POPULARITY_SPREAD = 1.0
"""Standard deviation of the logarithm of a film's popularity."""
_SELECTION = 1.8
"""How strongly the fit decides which films a person meets; 0 is not at all."""
_SILENCE = 0.12
"""Share of the verdicts without an opinion."""
_WITHOUT_OPINION: tuple[Relation, ...] = ("seen", "unseen", "suggested")


@dataclass(frozen=True, slots=True)
class Film:
    """One invented film."""

    id: str
    name: str
    """``Title (Year)``; two films of the world share one."""
    year: int
    genres: tuple[str, ...]
    director: str
    writers: tuple[str, ...]
    stars: tuple[str, ...]
    plot: str
    popularity: float
    """Odds of being met, relative to a film of popularity 1 and equal fit."""

    @property
    def decade(self) -> int:
        """First year of its decade."""
        return self.year // 10 * 10


@dataclass(frozen=True, slots=True)
class Taste:
    """What one person likes and dislikes, in units of fit."""

    genre_weights: Mapping[str, float]
    directors: frozenset[str]
    stars: frozenset[str]
    decade: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """One person's opinion of one film."""

    relation: Relation
    film: Film


def invent_films(seed: int, num_films: int) -> tuple[Film, ...]:
    """Invent the catalogue of a seed, in ascending order of id.

    Raises:
        ValueError: If there are fewer films than genres, or more than titles.
    """
    num_titles = len(FIRST_WORDS) * len(SECOND_WORDS)
    if not len(GENRES) <= num_films <= num_titles:
        raise ValueError(f"num_films must be {len(GENRES)} to {num_titles}, got {num_films}")
    generator = stream(seed, "small_world", "films")
    titles = generator.choice(num_titles, num_films, replace=False)
    ids = 100_000 + np.sort(generator.choice(100_000, num_films, replace=False))
    crew = _invent_crew(generator, num_films)
    genres = generator.permutation(np.arange(num_films) % len(GENRES))
    films = [
        _invent_film(generator, str(film_id), int(title), GENRES[genre], crew)
        for film_id, title, genre in zip(ids, titles, genres, strict=True)
    ]
    films[-1] = replace(films[-1], name=films[0].name, year=films[0].year)
    return tuple(films)


def invent_taste(films: Sequence[Film], generator: np.random.Generator) -> Taste:
    """Draw a person: two liked genres, two disliked ones, and favourites among the liked films."""
    order = generator.permutation(len(GENRES))
    weights = generator.normal(0.0, 0.3, len(GENRES))
    weights[order[:2]] += 2.0
    weights[order[2:4]] -= 2.0
    liked = {GENRES[index] for index in order[:2]}
    fitting = [film for film in films if liked & set(film.genres)] or list(films)
    favourites = [fitting[int(i)] for i in generator.integers(len(fitting), size=4)]
    return Taste(
        dict(zip(GENRES, weights.tolist(), strict=True)),
        frozenset(film.director for film in favourites[:2]),
        frozenset(film.stars[0] for film in favourites[2:]),
        DECADES[int(generator.integers(len(DECADES)))],
    )


def fit(films: Sequence[Film], taste: Taste) -> npt.NDArray[np.float64]:
    """Return the fit of each film and a taste, shape ``(films,)``; 0 is indifferent."""
    return np.array(
        [
            max(taste.genre_weights[genre] for genre in film.genres)
            + min(0.0, *(taste.genre_weights[genre] for genre in film.genres))
            + 1.2 * (film.director in taste.directors)
            + 0.8 * len(taste.stars.intersection(film.stars))
            + 0.5 * (film.decade == taste.decade)
            for film in films
        ]
    )


def chances(films: Sequence[Film], taste: Taste) -> npt.NDArray[np.float64]:
    """Return the probability that a person meets each film next, shape ``(films,)``."""
    logits = np.log([film.popularity for film in films]) + _SELECTION * fit(films, taste)
    weights = np.exp(logits - logits.max())
    return np.asarray(weights / weights.sum())


def draw_verdicts(
    films: Sequence[Film], taste: Taste, count: int, generator: np.random.Generator
) -> tuple[Verdict, ...]:
    """Draw the different films that a person meets, in order, with an opinion of each.

    Three of four films are drawn from :func:`chances`, the fourth by popularity alone, whatever the
    taste; most dislikes come from those.
    """
    fits, by_choice = fit(films, taste), chances(films, taste)
    popularity = np.array([film.popularity for film in films])
    met = 0.75 * by_choice + 0.25 * popularity / popularity.sum()
    indices = generator.choice(len(films), min(count, len(films)), replace=False, p=met)
    return tuple(
        Verdict(_relation(fits[int(index)], generator), films[int(index)]) for index in indices
    )


def _relation(film_fit: float, generator: np.random.Generator) -> Relation:
    silent, opinion = generator.random(2)
    if silent < _SILENCE:
        return _WITHOUT_OPINION[int(silent / _SILENCE * len(_WITHOUT_OPINION))]
    return "liked" if opinion < 1 / (1 + np.exp(-2.5 * film_fit)) else "disliked"


@dataclass(frozen=True, slots=True)
class _Crew:
    """Directors and stars by the genre they work in, and writers for all."""

    directors: Mapping[str, tuple[str, ...]]
    stars: Mapping[str, tuple[str, ...]]
    writers: tuple[str, ...]


def _invent_crew(generator: np.random.Generator, num_films: int) -> _Crew:
    people = [f"{given} {family}" for given in GIVEN_NAMES for family in FAMILY_NAMES]
    names = iter([people[int(i)] for i in generator.permutation(len(people))])

    def team(films_per_member: int) -> Mapping[str, tuple[str, ...]]:
        size = min(30, max(2, round(num_films / len(GENRES) / films_per_member)))
        return {genre: tuple(next(names) for _ in range(size)) for genre in GENRES}

    return _Crew(
        team(_FILMS_PER_DIRECTOR), team(_FILMS_PER_STAR), tuple(next(names) for _ in range(20))
    )


def _invent_film(
    generator: np.random.Generator, film_id: str, title: int, genre: str, crew: _Crew
) -> Film:
    def pick(options: Sequence[str]) -> str:
        return options[int(generator.integers(len(options)))]

    other = pick(GENRES)
    genres = (genre,) if generator.random() < 0.6 or other == genre else (genre, other)
    stars = dict.fromkeys((pick(crew.stars[genre]), pick(crew.stars[genres[-1]])))
    first, second = divmod(title, len(SECOND_WORDS))
    year = int(generator.integers(DECADES[0], DECADES[-1] + 10))
    plot = f"{pick(HEROES[genre])} {pick(QUESTS[genres[-1]])} in {pick(PLACES)}."
    return Film(
        id=film_id,
        name=f"{FIRST_WORDS[first]} {SECOND_WORDS[second]} ({year})",
        year=year,
        genres=genres,
        director=pick(crew.directors[genre]),
        writers=(pick(crew.writers),),
        stars=tuple(stars),
        plot=plot[0].upper() + plot[1:],
        popularity=float(np.exp(generator.normal(0.0, _POPULARITY_SPREAD))),
    )
