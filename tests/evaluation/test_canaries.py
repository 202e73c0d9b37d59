"""What must come out on the small world if the protocol is honest, whatever model is ranked."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from transformers import AutoTokenizer

from pkgllm.baselines.constant import Constant
from pkgllm.baselines.ease import Ease
from pkgllm.baselines.item_knn import ItemKnn
from pkgllm.baselines.likes import TrainingLikes
from pkgllm.baselines.popularity import Popularity
from pkgllm.baselines.prompt_copy import PromptCopy
from pkgllm.baselines.random import Random
from pkgllm.config.load import load_config
from pkgllm.config.schema import Experiment
from pkgllm.corpora.clients import Corpus
from pkgllm.corpora.population import Population
from pkgllm.corpora.splits import ClientSplit
from pkgllm.evaluation.protocol import evaluate
from pkgllm.evaluation.results import EvaluationResults
from pkgllm.evaluation.scorer import ClientQueries, Scorer
from pkgllm.evaluation.statistics import bootstrap_ratios
from pkgllm.graph.personal_graph import PersonalGraph
from pkgllm.pipeline.build import (
    build_groups,
    make_queries,
    populate,
    read_corpus,
)
from pkgllm.progress import Silent
from pkgllm.prompts.groups import Group
from pkgllm.prompts.prompts import PromptWriter
from pkgllm.randomness import stream


@pytest.fixture(scope="module")
def config() -> Experiment:
    return load_config("quickstart.yaml")


@pytest.fixture(scope="module")
def corpus(config: Experiment) -> Corpus:
    return read_corpus(config)


@pytest.fixture(scope="module")
def population(config: Experiment, corpus: Corpus) -> Population:
    return populate(config, corpus)


@pytest.fixture(scope="module")
def queries(config: Experiment, population: Population) -> tuple[ClientQueries, ...]:
    return make_queries(config, population, everybody=True)


@pytest.fixture(scope="module")
def likes(population: Population) -> TrainingLikes:
    return TrainingLikes(
        population.corpus.catalogue,
        [
            [fact.tail for fact in split.train_graph.with_relation("liked")]
            for split in population.in_training
        ],
    )


def ranks_of(found: EvaluationResults, name: str) -> NDArray[np.float64]:
    return np.concatenate([client.ranks.realistic for client in found.ranked[name]])


def num_ranked(found: EvaluationResults) -> NDArray[np.int64]:
    """Candidates of each query: a client's other held-out items are filtered."""
    return np.concatenate(
        [
            np.full(len(query.held_out), candidates - len(query.held_out) + 1)
            for query, candidates in zip(found.queries, found.num_candidates, strict=True)
        ]
    )


def test_a_constant_score_stands_in_the_middle_and_prompt_copy_beside_it(
    population: Population, likes: TrainingLikes, queries: Sequence[ClientQueries]
) -> None:
    catalogue = population.corpus.catalogue
    controls = (Constant().fit(likes), PromptCopy().fit(likes))
    found = evaluate(controls, queries, catalogue, resamples=1, seed=0)
    middle = (num_ranked(found) + 1) / 2
    assert np.array_equal(ranks_of(found, "constant"), middle)
    assert np.array_equal(ranks_of(found, "prompt_copy"), middle)
    # Copying would have found something to copy for nearly everyone.
    assert np.mean([bool(query.graph.with_relation("liked")) for query in queries]) > 0.9


def test_random_scores_are_no_better_than_chance(
    population: Population, likes: TrainingLikes, queries: Sequence[ClientQueries]
) -> None:
    catalogue = population.corpus.catalogue
    # One query for each client: those of one client share their scores, so they are not
    # independent.
    single = [replace(query, held_out=query.held_out[-1:]) for query in queries]
    gains: list[float] = []
    chances: list[float] = []
    variances: list[float] = []
    for seed in range(5):
        found = evaluate([Random().fit(likes, seed=seed)], single, catalogue, resamples=1, seed=0)
        for rank, count in zip(ranks_of(found, "random"), num_ranked(found), strict=True):
            reciprocals = 1 / np.arange(1, count + 1)
            gains.append(1 / rank - reciprocals.mean())
            chances.append(reciprocals.mean())
            variances.append(reciprocals.var())
    possible = 1 - np.mean(chances)
    adjusted = np.mean(gains) / possible
    error = np.sqrt(np.sum(variances)) / len(gains) / possible
    assert abs(adjusted) < 4 * error


class WithAnothersGraph:
    """Asks a scorer about each client as if it had the graph of another.

    What is held out of the client is taken from that graph first, so that it tells no answer. The
    candidates stay the client's own, so that all ranks can be compared.
    """

    name = "shuffled"

    def __init__(self, scorer: Scorer, graph_by_client: Mapping[str, PersonalGraph]) -> None:
        self._scorer = scorer
        self._graph_by_client = graph_by_client

    def scores(self, queries: Sequence[ClientQueries]) -> NDArray[np.float64]:
        return self._scorer.scores(
            [
                replace(query, graph=self._graph_by_client[query.client].without(query.held_out))
                for query in queries
            ]
        )


def graphs_of_others(queries: Sequence[ClientQueries], ring: int) -> Mapping[str, PersonalGraph]:
    """Give everyone's graph to the next along a random ring, so that nobody keeps their own."""
    order = stream(0, "graphs_of_others", ring).permutation(len(queries))
    given = {
        queries[taker].client: queries[giver].graph
        for taker, giver in zip(order, np.roll(order, 1), strict=True)
    }
    assert all(graph.owner != client for client, graph in given.items())
    return given


# What scripts/tune_baselines.py finds for the small world.
@pytest.mark.parametrize(
    "make",
    [
        lambda likes: ItemKnn(neighbours=50, shrinkage=1.0).fit(likes),
        lambda likes: Ease(l2=100.0).fit(likes),
    ],
    ids=["item_knn", "ease"],
)
def test_with_the_graph_of_another_a_model_falls_to_about_popularity(
    make: Callable[[TrainingLikes], Scorer],
    likes: TrainingLikes,
    queries: Sequence[ClientQueries],
) -> None:
    own = make(likes)

    def reciprocal_ranks(scorer: Scorer) -> NDArray[np.float64]:
        """Sum for each client."""
        found = evaluate([scorer], queries, likes.catalogue, resamples=1, seed=0)
        ranked = found.ranked[scorer.name]
        return np.array([(1 / client.ranks.realistic).sum() for client in ranked])

    # One ring is a small sample: MRR moves by .006 from ring to ring.
    rings = [WithAnothersGraph(own, graphs_of_others(queries, ring)) for ring in range(10)]
    shuffled = np.mean([reciprocal_ranks(ring) for ring in rings], axis=0)
    ratios = bootstrap_ratios(
        np.column_stack(
            [reciprocal_ranks(own), shuffled, reciprocal_ranks(Popularity().fit(likes))]
        ),
        np.array([len(query.held_out) for query in queries], dtype=float),
        resamples=2000,
        generator=stream(0, "canary"),
    )
    gain, left = ratios.difference(0, 2), ratios.difference(1, 2)
    assert gain.low is not None
    assert left.low is not None
    assert left.high is not None
    # The right graph makes a model better than popularity, beyond doubt.
    assert gain.low > 0
    # A wrong one does not: anything above popularity would have come from elsewhere than the
    # graph. It may do worse, as it asks for another's taste, but by less than the right graph gains
    # at least; that is the tolerance.
    assert left.low < 0
    assert -gain.low < left.low < left.high < gain.low


def held_out_items(split: ClientSplit) -> set[str]:
    return {fact.tail for fact in split.validation + split.test}


def with_other_future(split: ClientSplit, items: Sequence[str], corpus: Corpus) -> PersonalGraph:
    """The same past; the facts that are held out speak of other items."""
    other = {
        fact.tail: replace(fact, tail=item, name=corpus.catalogue[item].name)
        for fact, item in zip(split.validation + split.test, items, strict=True)
    }
    return split.graph.only(other.get(fact.tail, fact) for fact in split.graph.facts)


def uniform_negatives(groups: Sequence[Group]) -> list[str]:
    drawn = [c.item for group in groups for c in group.completions if c.source == "uniform"]
    return list(dict.fromkeys(drawn))


@pytest.mark.slow
def test_training_cannot_see_what_is_held_out(
    config: Experiment, corpus: Corpus, tiny_base_folder: Path, tmp_path: Path
) -> None:
    few = replace(corpus, graphs=corpus.graphs[:30])
    writer = PromptWriter(
        AutoTokenizer.from_pretrained(tiny_base_folder),
        form="prose",
        instruction="",
        request="Recommend movies to me.",
        max_tokens=10_000,
    )
    first = populate(config, few)
    groups = build_groups(config, first, writer, tmp_path / "first", Silent())
    # The worst that can be held out: what was drawn as a negative. A sampler that knew would avoid
    # it, and then all its later draws would be others.
    graphs, changed = [], set()
    for split in first.splits:
        drawn = uniform_negatives(groups.get(split.client, ()))
        free = [item for item in drawn if item not in split.graph.tails]
        needed = len(split.validation + split.test)
        if len(free) < needed:
            graphs.append(split.graph)
            continue
        graphs.append(with_other_future(split, free[:needed], corpus))
        changed.add(split.client)
    assert len(changed) > 20
    second = populate(config, replace(few, graphs=tuple(graphs)))
    for before, after in zip(first.splits, second.splits, strict=True):
        if before.client in changed:
            assert not held_out_items(before) & held_out_items(after)
            assert held_out_items(after) <= set(uniform_negatives(groups[before.client]))
    assert build_groups(config, second, writer, tmp_path / "second", Silent()) == groups
    assert second.liked_in_training() == first.liked_in_training()
