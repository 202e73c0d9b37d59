import gc
import tracemalloc
from collections.abc import Sequence

import numpy as np
import pytest
from torch import Tensor
from transformers import PreTrainedModel

from helpers.tiny_decoders import tiny_decoder
from helpers.tiny_ranking import (
    TERMINATOR,
    asked,
    everyone,
    least_budget,
    scorer_of,
    sound,
    trie_of,
)
from pkgllm.errors import ModelError
from pkgllm.evaluation.ranking.branches import Branches, Continuation
from pkgllm.evaluation.ranking.language_model import LanguageModelScorer
from pkgllm.evaluation.ranking.memory import MemoryPlan
from pkgllm.evaluation.scorer import RankedClient
from pkgllm.lm.decoder import Attention, Decoder

RANKING = "pkgllm.evaluation.ranking"


@pytest.fixture(scope="module")
def model() -> PreTrainedModel:
    return tiny_decoder(seed=3)


GRID = [[first, second, TERMINATOR] for first in range(1, 9) for second in range(1, 9)]
TEN = {
    f"p{place}": [(7 * place + step) % 60 for step in range(1 + 5 * place)] for place in range(10)
}


def ranked(scorer: LanguageModelScorer, clients: Sequence[str]) -> list[RankedClient]:
    """Rank GRID for some of TEN, each with columns of its own held out and left out."""
    places = [int(client[1:]) for client in clients]
    candidates = np.ones((len(places), len(GRID)), dtype=bool)
    for row, place in enumerate(places):
        candidates[row, 3 + place :: 11] = False
    gold = [np.array([place, place + 20]) for place in places]
    found = scorer.rank([asked(client) for client in clients], candidates, gold, top_k=10)
    return [sound(answer) for answer in found]


def assert_same(found: Sequence[RankedClient], expected: Sequence[RankedClient]) -> None:
    for one, other in zip(found, expected, strict=True):
        assert one.ranks.optimistic.tolist() == other.ranks.optimistic.tolist()
        assert one.ranks.pessimistic.tolist() == other.ranks.pessimistic.tolist()
        assert one.top.tolist() == other.top.tolist()


@pytest.mark.slow
def test_clients_together_are_ranked_as_each_alone(model: PreTrainedModel) -> None:
    scorer = scorer_of(model, TEN, trie_of(GRID))
    # Ten clients are more than go through at once, so the last ones follow after the first.
    assert scorer.clients_at_once == 8
    together = ranked(scorer, list(TEN))
    assert len({tuple(answer.top.tolist()) for answer in together}) == 10
    assert_same([ranked(scorer, [client])[0] for client in TEN], together)
    assert_same(ranked(scorer, list(TEN)[::-1]), together[::-1])
    scores = scorer.scores(everyone(TEN))
    alone = np.concatenate([scorer.scores([asked(client)]) for client in TEN])
    np.testing.assert_allclose(scores, alone, atol=1e-4)


@pytest.mark.slow
def test_memory_changes_nothing_but_how_much_goes_through_at_once(model: PreTrainedModel) -> None:
    trie = trie_of(GRID)
    expected = ranked(scorer_of(model, TEN, trie), list(TEN))
    clients_at_once = set()
    for times in (1, 2, 4, 8):
        budget = times * least_budget(model, trie)
        scorer = scorer_of(model, TEN, trie, memory_budget=budget)
        clients_at_once.add(scorer.clients_at_once)
        assert_same(ranked(scorer, list(TEN)), expected)
    assert min(clients_at_once) == 1
    assert len(clients_at_once) > 1


def test_a_budget_that_is_too_small_is_refused_at_once(model: PreTrainedModel) -> None:
    with pytest.raises(
        ModelError,
        match=r"evaluation\.memory_gib must be at least 0\.001 to rank with prompts of 62 ",
    ):
        scorer_of(model, TEN, trie_of(GRID), memory_budget=1000)
    with pytest.raises(ModelError, match="with prompts of 30 tokens, got"):
        scorer_of(model, TEN, trie_of(GRID), memory_budget=1000, longest_prompt=30)


@pytest.mark.slow
def test_a_client_that_fails_does_not_move_what_others_are_asked_for(
    model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    # One node at a time, so that nothing is visited that was not asked for.
    plan = MemoryPlan(clients=3, rows=1, logits=1, capacity=9)
    monkeypatch.setattr(
        "pkgllm.evaluation.ranking.language_model.plan_memory", lambda *_, **__: plan
    )
    scorer = scorer_of(model, {"p": [5, 6], "q": [], "r": [7]}, trie_of(GRID))
    scores = scorer.scores([asked("r")])[0]
    best, worst = np.array([scores.argmax()]), np.array([scores.argmin()])
    everything = np.ones((3, len(GRID)), dtype=bool)
    queries = [asked(client) for client in "pqr"]
    _, failed, last = scorer.rank(queries, everything, [best, best, worst], top_k=1)
    assert isinstance(failed, ModelError)
    assert sound(last).ranks.realistic.tolist() == [len(GRID)]


def test_scores_read_no_beginning_twice_in_whatever_order_prompts_come(
    model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = list(range(1, 31))
    lacking = {f"p{at}": whole[:at] + whole[at + 1 :] for at in (4, 25, 0, 11, 17, 8, 21, 2, 29)}
    prompts = {"whole": whole, **lacking}
    rows = 0
    hidden = Decoder.hidden

    def watched(decoder: Decoder, ids: Tensor, positions: Tensor, attention: Attention) -> Tensor:
        nonlocal rows
        rows += len(ids)
        return hidden(decoder, ids, positions, attention)

    monkeypatch.setattr(Decoder, "hidden", watched)
    scorer = scorer_of(model, prompts, trie_of([[5, TERMINATOR]]))
    # Ten clients take two batches.
    scores = scorer.scores(everyone(prompts))
    beginnings = {tuple(ids[: at + 1]) for ids in prompts.values() for at in range(len(ids))}
    # And the title's token after each prompt.
    assert rows == len(beginnings) + len(prompts)
    alone = np.concatenate([scorer.scores([asked(client)]) for client in prompts])
    np.testing.assert_allclose(scores, alone, atol=1e-5)


def held_bytes() -> int:
    """Return the size of all tensors, numpy arrays and other objects that exist."""
    gc.collect()
    storages: dict[int, int] = {}
    for found in gc.get_objects():
        if issubclass(type(found), Tensor):
            storage = found.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
    return sum(storages.values()) + tracemalloc.get_traced_memory()[0]


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_clients(
    model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = MemoryPlan(clients=2, rows=400, logits=50, capacity=144)
    monkeypatch.setattr(
        "pkgllm.evaluation.ranking.language_model.plan_memory", lambda *_, **__: plan
    )
    held: list[int] = []
    feed = Branches.feed

    def watched(branches: Branches, rows: Continuation) -> Tensor:
        if branches.num_fed == 0:
            held.append(held_bytes())
        return feed(branches, rows)

    monkeypatch.setattr(Branches, "feed", watched)
    # The same two prompts in every batch.
    prompts = {f"p{place}": [1 + place % 2] * 60 for place in range(16)}
    scorer = scorer_of(model, prompts, trie_of(GRID))
    everything, gold = np.ones((16, len(GRID)), dtype=bool), [np.array([0])] * 16
    tracemalloc.start()
    try:
        scorer.rank(everyone(prompts), everything, gold, top_k=5)
    finally:
        tracemalloc.stop()
    _, second, *_, last = held
    assert len(held) == 8
    # Keys and values of a prompt: 2 layers, 2 heads of 8 numbers. What the last batch holds beside
    # the second one's is ranks and lists of twelve clients.
    key_values = 60 * 2 * 2 * 2 * 8 * 4
    assert second > 2 * key_values
    assert last - second < 12 * key_values / 4
