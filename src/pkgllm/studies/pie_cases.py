"""People in a bubble (PIE): their graphs, their requests, and what they later like outside."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pkgllm.assistant.avoidance import rule_about, rule_against
from pkgllm.assistant.bubbles import find_bubbles
from pkgllm.assistant.guidance import Constraints
from pkgllm.assistant.recommend import Recommender
from pkgllm.corpora.catalogue import Catalogue, year_of
from pkgllm.corpora.domains import Domain
from pkgllm.errors import DataError
from pkgllm.evaluation.scorer import ClientQueries
from pkgllm.graph.personal_graph import PersonalGraph
from pkgllm.graph.rules import Rule


@dataclass(frozen=True, slots=True)
class PiePerson:
    """One client in a bubble."""

    graph: PersonalGraph
    """The visible facts."""
    rule: Rule
    """The bubble to leave."""
    held_out: tuple[str, ...]
    """Ids of later likes that lie outside the bubble; there may be none."""


@dataclass(frozen=True, slots=True)
class PieCase:
    """One domain with its people, and the request that all of them make."""

    name: str
    recommender: Recommender
    constraints: Constraints
    """Of the request. The model reads them and nothing enforces them, so that items that break
    them can be counted."""
    people: tuple[PiePerson, ...]
    num_asked: int
    """Clients among whom those in a bubble were looked for."""
    likes: NDArray[np.float64]
    """How many training clients like each item, shape ``(len(catalogue),)``."""
    alike: str = "genre"
    """The relation whose values make items alike."""


def film_case(
    name: str,
    recommender: Recommender,
    queries: Sequence[ClientQueries],
    likes: NDArray[np.float64],
) -> PieCase:
    """Find the clients of a corpus that are in a bubble; all ask for the newer half of the films.

    Raises:
        DataError: If no client is in one.
    """
    people = []
    for query in queries:
        bubbles = find_bubbles(query.graph, recommender.scopes)
        if bubbles:
            people.append(
                _person(recommender, query.graph, rule_against(bubbles[0]), query.held_out)
            )
    if not people:
        raise DataError(f"{name}: none of {len(queries)} clients is in a bubble; take more clients")
    constraints = Constraints(from_year=_median_year(recommender.catalogue))
    return PieCase(name, recommender, constraints, tuple(people), len(queries), likes)


def domain_case(domain: Domain, recommender: Recommender) -> PieCase:
    """Return the people of a shipped domain, all of whom are in the bubble that it names."""
    rule = rule_about(domain.avoid, recommender.scopes, number=1)
    likes = np.zeros(len(domain.catalogue))
    for person in domain.people:
        for fact in person.graph.with_relation("liked"):
            likes[domain.catalogue.index_by_id[fact.tail]] += 1
    people = tuple(_person(recommender, p.graph, rule, p.held_out) for p in domain.people)
    constraints = Constraints(required=(domain.constraint,))
    return PieCase(domain.name, recommender, constraints, people, len(people), likes, domain.alike)


def _person(
    recommender: Recommender, graph: PersonalGraph, rule: Rule, held_out: Sequence[str]
) -> PiePerson:
    inside = recommender.scopes.items(rule.scope, rule.value)
    return PiePerson(graph, rule, tuple(item for item in held_out if item not in inside))


def _median_year(catalogue: Catalogue) -> int:
    years = [year for name in catalogue.names if (year := year_of(name)) is not None]
    if not years:
        raise DataError("the names of the catalogue must hold years, as in Heat (1995); none does")
    return int(np.median(years))
