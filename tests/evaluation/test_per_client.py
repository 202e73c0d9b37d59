from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from helpers.tiny_ranking import asked, scorer_of, sound, trie_of
from pkgllm.errors import ModelError
from pkgllm.evaluation.per_client import PerClientScorer
from pkgllm.evaluation.scorer import ClientQueries, Ranker
from pkgllm.lm.adapter import adapter_state, attach_adapter, load_adapter_state
from pkgllm.lm.base_model import load_base_model


@pytest.mark.parametrize("order", [["a", "b", "c"], ["c", "a"], ["b", "b"], ["c"]])
def test_every_client_is_scored_with_its_own_adapter(
    tiny_base_folder: Path, order: list[str]
) -> None:
    base = load_base_model(str(tiny_base_folder), device="cpu")
    policy = attach_adapter(
        base.model, lora_rank=2, lora_alpha=8, target_modules="all-linear", seed=0
    )
    fresh = adapter_state(policy)
    generator = torch.Generator().manual_seed(0)
    own = {
        client: {
            key: torch.empty_like(value).normal_(0, 0.3, generator=generator)
            for key, value in fresh.items()
        }
        for client in "ab"
    }
    prompts = dict.fromkeys("abc", (3, 4, 5))
    shared = scorer_of(policy, prompts, trie_of([[5, 6, 2], [5, 2], [9, 7, 2]]))

    def select(client: str) -> None:
        load_adapter_state(policy, own.get(client, fresh))

    everything = np.ones((len(order), 3), dtype=bool)
    gold = [np.array([place % 3]) for place in range(len(order))]
    alone, alone_ranked = {}, []
    for client in "abc":
        select(client)
        alone[client] = shared.scores([asked(client)])[0]
    for place, client in enumerate(order):
        select(client)
        part = slice(place, place + 1)
        alone_ranked += shared.rank([asked(client)], everything[part], gold[part], top_k=2)
    assert np.abs(alone["a"] - alone["b"]).max() > 0.1
    assert np.abs(alone["a"] - alone["c"]).max() > 0.1

    scorer = PerClientScorer(shared, select)
    assert scorer.name == "base"
    assert isinstance(scorer, Ranker)
    assert scorer.clients_at_once == 1
    queries = [asked(client) for client in order]
    expected = np.stack([alone[client] for client in order])
    np.testing.assert_array_equal(scorer.scores(queries), expected)
    found = scorer.rank(queries, everything, gold, top_k=2)
    for one, other, client in zip(found, alone_ranked, order, strict=True):
        assert sound(one).ranks.realistic.tolist() == sound(other).ranks.realistic.tolist()
        assert sound(one).top.tolist() == np.argsort(-alone[client])[:2].tolist()


class Table:
    """Gives every client the row that is ready."""

    name = "tuned"

    def __init__(self) -> None:
        self.ready: list[str] = []

    def scores(self, queries: Sequence[ClientQueries]) -> NDArray[np.float64]:
        if self.ready and self.ready[-1] == "broken":
            raise ModelError("the adapter of 'broken' has diverged")
        row = [float(len(self.ready)), 1.5, 0.0, 0.0]
        return np.tile(row, (len(queries), 1)).reshape(len(queries), 4)


def test_a_scorer_without_a_shortcut_is_ranked_client_by_client() -> None:
    table = Table()
    scorer = PerClientScorer(table, table.ready.append)
    queries = [asked(client) for client in ("p", "broken", "q")]
    found = scorer.rank(queries, np.ones((3, 4), dtype=bool), [np.array([0])] * 3, top_k=1)
    assert table.ready == ["p", "broken", "q"]
    # The first row is 1, 1.5, ..., the third 3, 1.5, ...
    assert (sound(found[0]).ranks.realistic.tolist(), sound(found[0]).top.tolist()) == ([2], [1])
    assert isinstance(found[1], ModelError)
    assert (sound(found[2]).ranks.realistic.tolist(), sound(found[2]).top.tolist()) == ([1], [0])


def test_no_client_gives_no_rows_and_makes_nothing_ready() -> None:
    table = Table()
    scorer = PerClientScorer(table, table.ready.append)
    assert scorer.scores([]).shape == (0, 4)
    assert scorer.rank([], np.ones((0, 4), dtype=bool), [], top_k=1) == []
    assert table.ready == []
