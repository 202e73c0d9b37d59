from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from pkgllm.evaluation.language_model import LanguageModelScorer
from pkgllm.evaluation.per_client import PerClientScorer
from pkgllm.evaluation.scorer import ClientQueries
from pkgllm.evaluation.trie import CatalogueTrie
from pkgllm.graph.personal_graph import PersonalGraph
from pkgllm.lm.adapter import adapter_state, attach_adapter, load_adapter_state
from pkgllm.lm.base_model import load_base_model


def asked(client: str) -> ClientQueries:
    return ClientQueries(client, True, PersonalGraph(client, ()), ("x",))


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
    trie = CatalogueTrie([[5, 6, 2], [5, 2], [9, 7, 2]], names=["one", "two", "three"])
    shared = LanguageModelScorer("tuned", policy, lambda graph: [3, 4, 5], trie, max_positions=64)

    alone = {}
    for client in "abc":
        load_adapter_state(policy, own.get(client, fresh))
        alone[client] = shared.scores([asked(client)])[0]
    assert np.abs(alone["a"] - alone["b"]).max() > 0.1
    assert np.abs(alone["a"] - alone["c"]).max() > 0.1

    scorer = PerClientScorer(
        shared, lambda client: load_adapter_state(policy, own.get(client, fresh))
    )
    found = scorer.scores([asked(client) for client in order])
    assert scorer.name == "tuned"
    np.testing.assert_array_equal(found, np.stack([alone[client] for client in order]))


def test_no_client_gives_no_rows_and_makes_nothing_ready() -> None:
    class Empty:
        name = "tuned"

        def scores(self, queries: Sequence[ClientQueries]) -> NDArray[np.float64]:
            return np.zeros((len(queries), 4))

    ready: list[str] = []
    assert PerClientScorer(Empty(), ready.append).scores([]).shape == (0, 4)
    assert ready == []
