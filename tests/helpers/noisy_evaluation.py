"""An evaluation of scorers that know the answers, blurred by noise."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pkgllm.corpora.catalogue import Catalogue, Item
from pkgllm.errors import ModelError
from pkgllm.evaluation.protocol import evaluate
from pkgllm.evaluation.results import EvaluationResults
from pkgllm.evaluation.scorer import ClientQueries
from pkgllm.graph.personal_graph import Fact, Moment, PersonalGraph, Provenance

CATALOGUE = Catalogue(
    [
        Item(f"{index:03}", f"Film {index}", {"genre": (("Drama", "War")[index % 2],)})
        for index in range(300)
    ]
)
LIKES = np.arange(300, dtype=float)


class Noisy:
    """Scores near 1 for the items that are liked, blurred by noise."""

    def __init__(self, name: str, noise: float, failing: tuple[str, ...] = ()) -> None:
        self.name, self.noise, self.failing = name, noise, failing

    def scores(self, queries: Sequence[ClientQueries]) -> NDArray[np.float64]:
        (query,) = queries
        if query.client in self.failing:
            raise ModelError(f"client {query.client!r}: the prompt is too long")
        blur = np.random.default_rng([ord(letter) for letter in self.name + query.client])
        scores = blur.normal(size=(1, len(CATALOGUE))) * self.noise
        scores[0, [CATALOGUE.index_by_id[item] for item in query.held_out]] += 1
        return scores


class Constant(Noisy):
    def scores(self, queries: Sequence[ClientQueries]) -> NDArray[np.float64]:
        return np.zeros((1, len(CATALOGUE)))


def evaluation(
    num_clients: int = 40,
    failing: tuple[str, ...] = (),
    likes: NDArray[np.float64] | None = LIKES,
) -> EvaluationResults:
    queries = []
    for index in range(num_clients):
        client = f"client{index}"
        held_out = tuple(f"{(index * 7 + place) % 300:03}" for place in range(1 + index % 5))
        liked = f"{(index * 7 + 100) % 300:03}"
        said = Provenance("own_answer", "conversation/1")
        visible = (Fact("liked", liked, f"Film {liked}", Moment(0, 0), said),)
        graph = PersonalGraph(client, visible)
        queries.append(ClientQueries(client, index % 4 != 0, graph, held_out))
    scorers = [Noisy("tuned", 0.4, failing), Noisy("base", 0.6), Constant("popularity", 0)]
    return evaluate(scorers, queries, CATALOGUE, resamples=300, seed=0, training_likes=likes)
