from dataclasses import replace

import numpy as np
import pytest
import torch

from helpers.embedded_letters import CATALOGUE, LETTERS, TRAINING, VOWELS, asked, graph_of
from helpers.federated_letters import EXCHANGES, HAKE, KBGAT, PEOPLE, SCHEDULE, train
from pkgllm.corpora.catalogue import Catalogue, Item
from pkgllm.errors import DataError
from pkgllm.evaluation.protocol import evaluate
from pkgllm.evaluation.scorer import ClientQueries, Ranker
from pkgllm.kge.federated_scorer import FederatedScorer
from pkgllm.kge.pykeen_door import entity_parts, relation_parts, score_parts
from pkgllm.kge.settings import Exchange, FoldIn

SETTINGS = FoldIn(steps=20, learning_rate=0.05, num_negatives=4)


def by_model(trained: object, client: str | None) -> np.ndarray:
    """What a client's own model says of every letter."""
    model = trained.local_model(client)  # type: ignore[attr-defined]
    graphs = trained.graphs  # type: ignore[attr-defined]
    with torch.no_grad():
        scores = score_parts(
            model,
            [part[:, None] for part in entity_parts(model, torch.zeros(1, dtype=torch.long))],
            relation_parts(model, torch.tensor([[graphs.graph.relations["liked"]]])),
            [part[None] for part in entity_parts(model, torch.from_numpy(graphs.items))],
        )
    return np.asarray(scores[0])


@pytest.mark.slow
@pytest.mark.parametrize("choice", [HAKE, KBGAT], ids=lambda choice: choice.name)
@pytest.mark.parametrize("exchange", EXCHANGES)
def test_everybody_gets_scores_that_do_not_depend_on_who_else_asks(
    choice: object, exchange: Exchange
) -> None:
    scorer = FederatedScorer("fed", train(choice, exchange), settings=SETTINGS, seed=0)  # type: ignore[arg-type]
    queries = [
        asked(PEOPLE[0], seen=True),
        asked(graph_of("bob", liked="bcd", disliked="a"), seen=True),
        asked(graph_of("stranger", liked="bc")),
        asked(graph_of("nobody")),
    ]
    scores = scorer.scores(queries)
    assert scores.shape == (4, len(LETTERS))
    assert np.isfinite(scores).all()
    for row, query in zip(scores, queries, strict=True):
        assert row == pytest.approx(scorer.scores([query])[0], abs=1e-4)
    assert scorer.scores([]).shape == (0, len(LETTERS))
    # A namesake who did not train is a newcomer.
    namesake = scorer.scores([asked(PEOPLE[0], seen=False)])[0]
    assert namesake != pytest.approx(scores[0], abs=1e-4)


@pytest.mark.parametrize("exchange", EXCHANGES)
def test_whose_vector_and_whose_tables_are_asked(exchange: Exchange) -> None:
    trained = train(HAKE, exchange, settings={"cohort_size": 3})
    unfit = FederatedScorer("fed", trained, settings=FoldIn(steps=0), seed=0)
    ann, bob, nobody = unfit.scores(
        [asked(PEOPLE[0], seen=True), asked(PEOPLE[1], seen=True), asked(graph_of("nobody"))]
    )
    for row, client in ((ann, "ann"), (bob, "bob"), (nobody, None)):
        assert row == pytest.approx(by_model(trained, client), abs=1e-5)
    assert ann != pytest.approx(bob, abs=1e-4)


def test_in_isolation_a_vector_stays_until_something_new_is_visible() -> None:
    trained = train(HAKE, "isolation", settings={"cohort_size": 3})
    scorer = FederatedScorer("fed", trained, settings=SETTINGS, seed=0)
    more = graph_of("ann", liked="aeb")
    same, news = (
        scorer.scores([asked(PEOPLE[0], seen=True)])[0],
        scorer.scores([asked(more, seen=True)])[0],
    )
    assert same == pytest.approx(by_model(trained, "ann"), abs=1e-5)
    assert news != pytest.approx(same, abs=1e-3)


def test_in_isolation_who_never_took_part_is_fit() -> None:
    trained = train(HAKE, "isolation", settings={"cohort_size": 1, "local_epochs": 4})
    (absent, *_) = [p for p in PEOPLE if not trained.took_part(p.owner)]
    scorer = FederatedScorer("fed", trained, settings=SETTINGS, seed=0)
    (scores,) = scorer.scores([asked(absent, seen=True)])
    assert scores == pytest.approx(scorer.scores([asked(absent, seen=False)])[0], abs=1e-5)
    assert scores != pytest.approx(by_model(trained, None), abs=1e-3)


@pytest.mark.slow
def test_clients_learn_from_each_other_what_a_stranger_likes() -> None:
    some = [*TRAINING[:2], *TRAINING[6:8]]
    choice = replace(HAKE, dim=8, schedule=replace(SCHEDULE, epochs=20, learning_rate=0.03))
    trained = train(choice, "fedavg", some, settings={"cohort_size": 4, "local_epochs": 10})
    scorer = FederatedScorer("fed", trained, settings=SETTINGS, seed=0)
    assert isinstance(scorer, Ranker)
    vowels, consonants = scorer.scores(
        [asked(graph_of("v", liked="ae")), asked(graph_of("c", liked="bcdf"))]
    )
    of_vowels = vowels - consonants
    left = [LETTERS.index(letter) for letter in "ghj"]
    assert of_vowels[LETTERS.index(VOWELS[-1])] > of_vowels[left].mean()
    queries = [ClientQueries("v", False, graph_of("v", liked="a"), ("e", "i"))]
    evaluation = evaluate([scorer], queries, CATALOGUE, resamples=10, seed=0)
    assert not evaluation.ranked["fed"][0].failed


def test_an_item_without_a_vector_is_refused() -> None:
    trained = train(HAKE, "fede")
    other = Catalogue([Item("a", "A"), Item("?", "Unknown")])
    with pytest.raises(DataError, match=r"every item to rank must have a vector, and 1 of 2"):
        FederatedScorer("fed", trained, settings=SETTINGS, seed=0, catalogue=other)
    fewer = Catalogue([Item("b", "B"), Item("d", "D")])
    queries = [asked(PEOPLE[0], seen=True)]
    some = FederatedScorer("fed", trained, settings=SETTINGS, seed=0, catalogue=fewer)
    every = FederatedScorer("fed", trained, settings=SETTINGS, seed=0)
    assert some.scores(queries)[0] == pytest.approx(every.scores(queries)[0, [1, 3]], abs=1e-6)
