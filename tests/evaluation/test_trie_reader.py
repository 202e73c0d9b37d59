from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from helpers.tiny_decoders import VOCABULARY, tiny_decoder
from pkgllm.evaluation.ranking.branches import Branches
from pkgllm.evaluation.ranking.trie_reader import TrieReader
from pkgllm.evaluation.ranking.trie_search import Rows
from pkgllm.lm.decoder import Decoder

PROMPTS = [[5, 6, 7], [8] * 12, [9]]
TOKENS = np.array([3, 1, 59])


@pytest.fixture(scope="module")
def model() -> PreTrainedModel:
    return tiny_decoder()


def reader_of(model: PreTrainedModel, *, capacity: int = 8, logits_at_once: int = 2) -> TrieReader:
    branches = Branches(Decoder(model), capacity=capacity)
    return TrieReader(branches, PROMPTS, logits_at_once=logits_at_once)


def expected(
    model: PreTrainedModel, prompt: Sequence[int], beginning: Sequence[int]
) -> NDArray[np.float32]:
    """Return the model's own log-probability of every token after a beginning."""
    logits = model(input_ids=torch.tensor([[*prompt, *beginning]]), use_cache=False).logits[0, -1]
    found: NDArray[np.float32] = logits.log_softmax(dim=-1).numpy()
    return found


def rows_of(
    *rows: tuple[int, list[int], list[int], list[int]],
) -> Rows:
    """Make rows from client, beginning, slots of the beginning, and children's tokens."""
    longest = max(len(slots) for _, _, slots, _ in rows)
    return Rows(
        clients=np.array([client for client, _, _, _ in rows]),
        input_ids=np.array([beginning[-1] for _, beginning, _, _ in rows]),
        depths=np.array([len(beginning) - 1 for _, beginning, _, _ in rows]),
        path=np.array([[*slots, *[-1] * (longest - len(slots))] for _, _, slots, _ in rows]),
        child_tokens=np.array([token for row in rows for token in row[3]], dtype=np.int64),
        child_offsets=np.cumsum([0, *(len(tokens) for _, _, _, tokens in rows)]),
    )


@pytest.mark.slow
@pytest.mark.parametrize("logits_at_once", [1, 2, 100])
@torch.inference_mode()
def test_what_may_follow_each_prompt(model: PreTrainedModel, logits_at_once: int) -> None:
    reader = reader_of(model, logits_at_once=logits_at_once)
    found = reader.first_log_probs(TOKENS)
    assert found.shape == (3, 3)
    assert found.dtype == np.float32
    for client, prompt in enumerate(PROMPTS):
        np.testing.assert_allclose(found[client], expected(model, prompt, [])[TOKENS], atol=1e-5)
    assert reader.first_log_probs(TOKENS[:0]).shape == (3, 0)
    assert reader.capacity == 8


@pytest.mark.parametrize("logits_at_once", [1, 2, 100])
@torch.inference_mode()
def test_what_may_follow_each_node(model: PreTrainedModel, logits_at_once: int) -> None:
    reader = reader_of(model, logits_at_once=logits_at_once)

    def check(*rows: tuple[int, list[int], list[int], list[int]]) -> None:
        found = reader.feed(rows_of(*rows))
        after = [
            expected(model, PROMPTS[client], beginning)[tokens]
            for client, beginning, _, tokens in rows
        ]
        np.testing.assert_allclose(found, np.concatenate(after), atol=1e-5)

    # The second client waits, then goes on from slots of its own beside the first one's.
    check((0, [4], [0], [1, 2, 3]), (0, [4, 7], [0, 1], []), (2, [4], [2], [59]))
    check((0, [4, 7, 2], [0, 1, 3], [0, 5]), (1, [4], [4], [6]), (2, [4, 3], [2, 5], [8, 9]))
    reader.forget(3)
    # Slots 3 and later hold something else now.
    check((1, [30], [3], [2]), (1, [30, 31], [3, 4], [2]), (2, [4, 8], [2, 5], [1, 2, 3, 4]))
    nothing = reader.feed(rows_of((0, [50], [6], [])))
    assert nothing.shape == (0,)


@torch.inference_mode()
def test_one_client_s_nan_does_not_reach_the_shorter_branches_of_others() -> None:
    broken: Any = tiny_decoder()
    broken.get_input_embeddings().weight[40] = torch.nan
    reader = reader_of(broken)
    every = list(range(VOCABULARY))
    assert np.isnan(reader.feed(rows_of((0, [40], [0], every)))).all()
    found = reader.feed(rows_of((1, [4], [1], every), (1, [4, 7], [1, 2], every)))
    after = [expected(broken, PROMPTS[1], beginning) for beginning in ([4], [4, 7])]
    np.testing.assert_allclose(found, np.concatenate(after), atol=1e-5)


@torch.inference_mode()
def test_more_nodes_than_slots_are_refused(model: PreTrainedModel) -> None:
    reader = reader_of(model, capacity=1)
    with pytest.raises(ValueError, match="2 tokens do not fit into 1 slots"):
        reader.feed(rows_of((0, [4], [0], [1]), (1, [4], [1], [1])))
