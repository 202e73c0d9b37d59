import itertools
import re

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from helpers.tiny_decoders import tiny_decoder
from pkgllm.errors import ModelError
from pkgllm.evaluation.ranking.branches import Branches
from pkgllm.evaluation.ranking.memory import MemoryPlan, plan_memory
from pkgllm.evaluation.ranking.trie import CatalogueTrie
from pkgllm.lm.decoder import Decoder

TITLES = [[*title, 0] for title in itertools.product(range(1, 5), repeat=4)]
TRIE = CatalogueTrie(TITLES, names=["film"] * len(TITLES))
NUM_INPUTS = 4 + 16 + 64 + 256
MIB = 2**20

budgets = st.integers(2**12, 2**24)
lengths = st.integers(1, 300)


@pytest.fixture(scope="module", params=[torch.float32, torch.bfloat16], ids=str)
def decoder(request: pytest.FixtureRequest) -> Decoder:
    return Decoder(tiny_decoder(vocab_size=200).to(request.param))


def plan(decoder: Decoder, longest_prompt: int, budget: int) -> MemoryPlan | None:
    try:
        return plan_memory(decoder, TRIE, longest_prompt=longest_prompt, budget=budget)
    except ModelError:
        return None


@settings(deadline=None)
@given(lengths, budgets, budgets)
def test_a_plan_grows_with_the_budget(
    decoder: Decoder, longest_prompt: int, budget: int, more: int
) -> None:
    small = plan(decoder, longest_prompt, min(budget, more))
    large = plan(decoder, longest_prompt, max(budget, more))
    assume(small is not None)
    assert small is not None
    # What a small budget can do a larger one can.
    assert large is not None
    assert small.clients <= large.clients
    assert small.rows <= large.rows
    assert small.logits <= large.logits
    assert small.capacity <= large.capacity


@pytest.mark.slow
@settings(deadline=None)
@given(lengths, budgets)
@torch.inference_mode()
def test_a_plan_stays_within_its_budget_and_its_limits(
    decoder: Decoder, longest_prompt: int, budget: int
) -> None:
    found = plan(decoder, longest_prompt, budget)
    assume(found is not None)
    assert found is not None
    assert 1 <= found.clients <= 8
    assert 1 <= found.rows <= 1024
    assert 1 <= found.logits <= 256
    assert TRIE.longest_input <= found.capacity <= found.clients * NUM_INPUTS
    # What is held, as it is really allocated: of prompts here only one.
    branches = Branches(decoder, capacity=found.capacity)
    branches.read([[1] * longest_prompt])
    prompt = sum(part.nbytes for layer in branches._prompts[0] for part in layer)
    held = branches._slots.nbytes + found.clients * prompt
    # What no pass can do without: scores and shares, queries, and logits with their softmax.
    scores = 2 * 4 * decoder.num_heads * (longest_prompt + TRIE.longest_input)
    query = decoder.dtype.itemsize * decoder.num_heads * decoder.head_dim
    logits = 2 * 4 * decoder.vocab_size
    assert held + found.rows * (scores + query) + found.logits * logits <= budget


def test_clients_are_held_together_where_each_has_room_for_the_whole_trie(
    decoder: Decoder,
) -> None:
    # Keys and values of a token: 2 layers, 2 heads of 8 numbers. Five eighths are theirs.
    slot = 2 * 2 * 2 * 8 * decoder.dtype.itemsize
    for clients in (1, 2, 3):
        whole = clients * (100 + NUM_INPUTS) * slot * 8 // 5
        enough, short = plan(decoder, 100, whole + 8), plan(decoder, 100, whole - 8)
        assert enough is not None
        assert short is not None
        assert (enough.clients, enough.capacity) == (clients, clients * NUM_INPUTS)
        assert short.clients == max(clients - 1, 1)
        assert short.capacity < clients * NUM_INPUTS
    much = plan(decoder, 100, 100 * MIB)
    assert much == MemoryPlan(clients=8, rows=1024, logits=256, capacity=8 * NUM_INPUTS)


@pytest.mark.parametrize("longest_prompt", [1, 50, 20_000, 300_000])
def test_the_least_that_the_message_asks_for_is_enough(
    decoder: Decoder, longest_prompt: int
) -> None:
    with pytest.raises(ModelError) as caught:
        plan_memory(decoder, TRIE, longest_prompt=longest_prompt, budget=1000)
    message = re.fullmatch(
        r"evaluation\.memory_gib must be at least (\d+\.\d{3}) to rank with prompts of (\d+) "
        r"tokens, got 9\.31323e-07; raise it, or lower prompt\.max_tokens",
        str(caught.value),
    )
    assert message is not None
    assert int(message[2]) == longest_prompt
    asked_for = int(float(message[1]) * 2**30)
    assert plan(decoder, longest_prompt, asked_for) is not None
    assert plan(decoder, longest_prompt, asked_for - 2**30 // 1000 - 1) is None
