from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from helpers.embedded_letters import (
    CATALOGUE,
    CHOICES,
    CONSONANTS,
    LETTERS,
    SCHEDULE,
    TRAINING,
    VOWELS,
    asked,
    graph_of,
)
from pkgllm.corpora.catalogue import Catalogue, Item
from pkgllm.errors import DataError
from pkgllm.evaluation.protocol import evaluate
from pkgllm.evaluation.scorer import ClientQueries, Ranker, candidate_mask, rank_queries
from pkgllm.kge.embedding import Embedding
from pkgllm.kge.embeddings.hake import Hake
from pkgllm.kge.embeddings.kbgat import Kbgat
from pkgllm.kge.fold_in import mean_person
from pkgllm.kge.preference_graph import make_preference_graph
from pkgllm.kge.pykeen_door import entity_parts, relation_parts, score_parts
from pkgllm.kge.scorer import EmbeddingScorer
from pkgllm.kge.settings import FoldIn
from pkgllm.kge.training import TrainingSetup, train_embeddings

GRAPH = make_preference_graph(CATALOGUE, TRAINING)
SETTINGS = FoldIn(steps=60, learning_rate=0.05, num_negatives=8)
BY_NAME = {choice.name: choice for choice in CHOICES}
NAMES = list(BY_NAME)
FITTED = [name for name in NAMES if name != "node_piece"]
Scorers = Callable[[str], EmbeddingScorer]


@pytest.fixture(scope="module")
def scorer_of() -> Scorers:
    scorers: dict[str, EmbeddingScorer] = {}

    def make(name: str) -> EmbeddingScorer:
        if name not in scorers:
            model = train_embeddings(BY_NAME[name], GRAPH.triples, TrainingSetup(seed=0))
            scorers[name] = EmbeddingScorer(name, model, GRAPH, settings=SETTINGS, seed=0)
        return scorers[name]

    return make


def columns(letters: str) -> list[int]:
    return [LETTERS.index(letter) for letter in letters]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_everybody_gets_a_finite_score_for_every_item(name: str, scorer_of: Scorers) -> None:
    queries = [
        asked(TRAINING[0], seen=True),
        asked(graph_of("stranger", liked="bc", disliked="a")),
        asked(graph_of("nobody")),
        asked(graph_of("elsewhere", liked=["not in the catalogue"])),
    ]
    scores = scorer_of(name).scores(queries)
    assert scores.shape == (4, len(LETTERS))
    assert scores.dtype == np.float64
    assert np.isfinite(scores).all()
    for row, query in zip(scores, queries, strict=True):
        assert row == pytest.approx(scorer_of(name).scores([query])[0], abs=1e-4)
    assert scorer_of(name).scores([]).shape == (0, len(LETTERS))


@pytest.mark.slow
@pytest.mark.parametrize("name", FITTED)
def test_strangers_are_scored_by_what_they_like(name: str, scorer_of: Scorers) -> None:
    scores = scorer_of(name).scores(
        [asked(graph_of("v", liked="ae")), asked(graph_of("c", liked="bcdf"))]
    )
    # What is left of their kind, against what is left of the other.
    of_vowels, of_consonants = scores[0] - scores[1], scores[1] - scores[0]
    assert of_vowels[columns("i")].mean() > of_vowels[columns("ghj")].mean()
    assert of_consonants[columns("ghj")].mean() > of_consonants[columns("i")].mean()


@pytest.mark.parametrize("name", FITTED)
def test_a_person_without_known_facts_is_the_mean_person(name: str, scorer_of: Scorers) -> None:
    scorer = scorer_of(name)
    scores = scorer.scores([asked(graph_of("nobody")), asked(graph_of("no one", liked=["?"]))])
    assert np.array_equal(scores[0], scores[1])
    model = scorer._model
    mean = [part[None, None] for part in mean_person(model, torch.arange(len(TRAINING)))]
    liked = relation_parts(model, torch.tensor([[GRAPH.relations["liked"]]]))
    items = [part[None] for part in entity_parts(model, torch.from_numpy(GRAPH.items))]
    expected = score_parts(model, mean, liked, items)[0]
    assert scores[0] == pytest.approx(expected.detach().numpy(), abs=1e-5)


@pytest.mark.parametrize("name", FITTED)
def test_who_trained_keeps_the_vector_until_something_new_is_visible(
    name: str, scorer_of: Scorers
) -> None:
    scorer, graph = scorer_of(name), TRAINING[1]
    entity = GRAPH.persons[graph.owner]
    heads = torch.full((len(LETTERS),), entity)
    triples = torch.stack(
        [heads, torch.full_like(heads, GRAPH.relations["liked"]), torch.from_numpy(GRAPH.items)]
    ).T
    model = scorer._model
    by_model = model.predict_hrt(triples)[:, 0].detach().numpy()
    (row,) = scorer.scores([asked(graph, seen=True)])
    assert row == pytest.approx(by_model, abs=1e-5)

    more = graph_of(graph.owner, liked=[*(fact.tail for fact in graph.facts), "b", "c"])
    (with_news,) = scorer.scores([asked(more, seen=True)])
    assert with_news != pytest.approx(by_model, abs=1e-3)
    # The same name in another folder is somebody else.
    (namesake,) = scorer.scores([asked(graph, seen=False)])
    assert namesake != pytest.approx(by_model, abs=1e-3)


def test_node_piece_reads_relations_alone(scorer_of: Scorers) -> None:
    scorer = scorer_of("node_piece")
    one, same, other = scorer.scores(
        [
            asked(graph_of("p", liked="a")),
            asked(graph_of("p", liked="bc")),
            asked(graph_of("p", liked="a", disliked="b")),
        ]
    )
    assert np.array_equal(one, same)
    # Nobody dislikes anything in training, so that the relation says nothing.
    assert np.array_equal(one, other)


def test_the_protocol_ranks_what_the_scores_say(scorer_of: Scorers) -> None:
    scorer = scorer_of("hake")
    assert isinstance(scorer, Ranker)
    queries = [
        ClientQueries("v", False, graph_of("v", liked="a"), ("e", "i")),
        ClientQueries("c", False, graph_of("c", liked="bc"), ("d",)),
    ]
    masks = np.stack([candidate_mask(CATALOGUE, query) for query in queries])
    gold = [np.array(columns("ei")), np.array(columns("d"))]
    ranked = scorer.rank(queries, masks, gold, top_k=3)

    class OnlyScores:
        name = "only scores"
        scores = staticmethod(scorer.scores)

    one_by_one = rank_queries(OnlyScores(), queries, masks, gold, top_k=3)
    for entry, expected in zip(ranked, one_by_one, strict=True):
        assert not isinstance(entry, Exception)
        assert not isinstance(expected, Exception)
        assert np.array_equal(entry.ranks.realistic, expected.ranks.realistic)
        assert np.array_equal(entry.top, expected.top)
    evaluation = evaluate([scorer], queries, CATALOGUE, resamples=10, seed=0)
    assert [client.failed for client in evaluation.ranked["hake"]] == [False, False]


def test_a_decoder_that_says_the_same_of_all_ties(scorer_of: Scorers) -> None:
    scorer = scorer_of("kbgat")
    (linear,) = [m for m in scorer._model.modules() if isinstance(m, torch.nn.Linear)]
    before = linear.weight.detach().clone()
    with torch.no_grad():
        linear.weight.zero_()
    try:
        query = ClientQueries("v", False, graph_of("v", liked="a"), ("e",))
        mask = candidate_mask(CATALOGUE, query)[None]
        (entry,) = scorer.rank([query], mask, [np.array(columns("e"))], top_k=3)
    finally:
        with torch.no_grad():
            linear.weight.copy_(before)
    assert not isinstance(entry, Exception)
    assert entry.ranks.realistic.tolist() == [(9 + 1) / 2]


def test_a_score_that_is_no_number_fails_its_client(scorer_of: Scorers) -> None:
    scorer = scorer_of("complex")
    query = ClientQueries("v", False, graph_of("v", liked="a"), ("e",))
    table = next(scorer._model.parameters())
    broken = EmbeddingScorer("broken", scorer._model, GRAPH, settings=SETTINGS, seed=0)
    broken._items = [torch.full_like(part, torch.nan) for part in broken._items]
    mask = candidate_mask(CATALOGUE, query)[None]
    (entry,) = broken.rank([query], mask, [np.array(columns("e"))], top_k=3)
    assert isinstance(entry, DataError)
    assert torch.isfinite(table).all()


def test_a_model_of_another_graph_is_refused(scorer_of: Scorers) -> None:
    other = make_preference_graph(CATALOGUE, TRAINING[:3])
    with pytest.raises(DataError, match="the model must have the 18 entities of its graph, has 27"):
        EmbeddingScorer("hake", scorer_of("hake")._model, other, settings=SETTINGS, seed=0)


@pytest.mark.parametrize(
    "choice",
    [
        Hake(dim=4, schedule=replace(SCHEDULE, epochs=2)),
        Kbgat(
            transe_dim=4,
            dim=2,
            transe_schedule=replace(SCHEDULE, epochs=2),
            attention_schedule=replace(SCHEDULE, epochs=2, batch_size=None),
            decoder_schedule=replace(SCHEDULE, epochs=2),
            filters=2,
        ),
    ],
    ids=lambda choice: choice.name,
)
def test_one_client_and_one_like_are_enough(choice: Embedding) -> None:
    catalogue = Catalogue([Item("1", "Bare"), Item("2", "Bare too")])
    graph = make_preference_graph(catalogue, [graph_of("only", liked=["1"])])
    model = train_embeddings(choice, graph.triples, TrainingSetup(seed=0))
    scorer = EmbeddingScorer(choice.name, model, graph, settings=SETTINGS, seed=0)
    scores = scorer.scores(
        [asked(graph_of("only", liked=["1"]), seen=True), asked(graph_of("x", liked=["1", "2"]))]
    )
    assert np.isfinite(scores).all()


def test_vowels_and_consonants_are_all_letters() -> None:
    assert sorted(VOWELS + CONSONANTS) == list(LETTERS)
