import random
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import PreTrainedModel

from helpers.tiny_decoders import VOCABULARY, tiny_decoder
from pkgllm.evaluation.ranking.branches import Branches, Continuation
from pkgllm.lm.decoder import KNOWN_MODELS, Attention, Decoder

Tree = list[tuple[int, int]]
"""Parent, -1 for the prompt, and token of each node; parents stand before their children."""
Row = tuple[int, int]
"""Prompt and node."""


def branch(tree: Tree, node: int) -> list[int]:
    """Return a node's ancestors and itself, last."""
    parent = tree[node][0]
    return [*(branch(tree, parent) if parent >= 0 else []), node]


class Planted:
    """Prompts with a tree each, what is held of it where, and what the model makes of it all.

    Args:
        model: Its own forward pass is the reference.
        capacity: Slots.
        rows_at_once: Tokens of prompts in one pass.
    """

    def __init__(self, model: PreTrainedModel, capacity: int, rows_at_once: int = 1) -> None:
        self.model = model
        self.branches = Branches(Decoder(model), capacity=capacity, rows_at_once=rows_at_once)
        self.slots: dict[Row, int] = {}

    def read(self, prompts: Sequence[list[int]], trees: Sequence[Tree]) -> None:
        self.prompts, self.trees = prompts, trees
        self.slots = {}
        found = self.branches.read(prompts)
        assert self.branches.num_fed == 0
        self.assert_same(found, [self.expected(prompt, []) for prompt in prompts])

    def feed(self, rows: Sequence[Row], *, fill: int = 0) -> Tensor:
        """Feed rows, ordered by prompt, and check what comes back."""
        for row in rows:
            self.slots[row] = len(self.slots)
        paths = [
            [self.slots[prompt, node] for node in branch(self.trees[prompt], node)]
            for prompt, node in rows
        ]
        longest = max(len(path) for path in paths)
        path = torch.full((len(rows), longest), fill)
        missing = torch.ones(len(rows), longest, dtype=torch.bool)
        for place, slots in enumerate(paths):
            path[place, : len(slots)] = torch.tensor(slots)
            missing[place, : len(slots)] = False
        owners = [prompt for prompt, _ in rows]
        found = self.branches.feed(
            Continuation(
                input_ids=torch.tensor([self.trees[prompt][node][1] for prompt, node in rows]),
                depths=torch.tensor([len(slots) - 1 for slots in paths]),
                bounds=tuple(
                    sum(owner < prompt for owner in owners)
                    for prompt in range(len(self.prompts) + 1)
                ),
                path=path,
                missing=missing if missing.any() else None,
            )
        )
        assert self.branches.num_fed == len(self.slots)
        self.assert_same(
            found,
            [
                self.expected(self.prompts[prompt], self.tokens(prompt, node))
                for prompt, node in rows
            ],
        )
        return found

    def forget(self, num_kept: int) -> None:
        self.branches.forget(num_kept)
        self.slots = {row: slot for row, slot in self.slots.items() if slot < num_kept}

    def tokens(self, prompt: int, node: int) -> list[int]:
        return [self.trees[prompt][above][1] for above in branch(self.trees[prompt], node)]

    def expected(self, prompt: list[int], tokens: list[int]) -> Tensor:
        ids = torch.tensor([[*prompt, *tokens]])
        found = self.model(input_ids=ids, use_cache=False, output_hidden_states=True)
        hidden: Tensor = found.hidden_states[-1][0, -1]
        return hidden

    def assert_same(self, found: Tensor, expected: Sequence[Tensor]) -> None:
        torch.testing.assert_close(found, torch.stack(list(expected)), rtol=1e-4, atol=1e-4)


@pytest.fixture(scope="module", params=KNOWN_MODELS)
def model(request: pytest.FixtureRequest) -> PreTrainedModel:
    return tiny_decoder(request.param)


tokens = st.integers(0, VOCABULARY - 1)


@st.composite
def prompts(draw: st.DrawFn) -> list[list[int]]:
    """Draw prompts of which many begin like another one, or are one."""
    found: list[list[int]] = []
    for _ in range(draw(st.integers(1, 4))):
        another = draw(st.sampled_from(found)) if found else []
        beginning = another[: draw(st.integers(0, len(another)))]
        found.append(beginning + draw(st.lists(tokens, min_size=not beginning, max_size=9)))
    return draw(st.permutations(found))


@st.composite
def trees(draw: st.DrawFn) -> Tree:
    drawn = draw(st.lists(tokens, max_size=7))
    return [(draw(st.integers(-1, node - 1)), token) for node, token in enumerate(drawn)]


def any_pass(planted: Planted, chance: random.Random) -> list[Row]:
    """Draw rows that were not fed yet, each with its ancestors held or before it."""
    rows: list[Row] = []
    for prompt, tree in enumerate(planted.trees):
        for node, (parent, _) in enumerate(tree):
            row, above = (prompt, node), (prompt, parent)
            ready = parent < 0 or above in planted.slots or above in rows
            if row not in planted.slots and ready and chance.random() < 0.5:
                rows.append(row)
    return rows


@pytest.mark.slow
@settings(deadline=None, max_examples=50)
@given(prompts(), st.integers(1, 40), st.data(), st.randoms(use_true_random=False))
@torch.inference_mode()
def test_any_trees_fed_in_any_passes_equal_the_whole_sequences(
    model: PreTrainedModel,
    read: list[list[int]],
    rows_at_once: int,
    data: st.DataObject,
    chance: random.Random,
) -> None:
    planted = Planted(model, capacity=12, rows_at_once=rows_at_once)
    planted.read(read, [data.draw(trees()) for _ in read])
    for _ in range(4):
        rows = any_pass(planted, chance)
        if len(planted.slots) + len(rows) > planted.branches.capacity:
            planted.forget(chance.randint(0, len(planted.slots)))
            rows = any_pass(planted, chance)[: planted.branches.capacity - len(planted.slots)]
        if rows:
            used = len(planted.slots) + len(rows)
            planted.feed(rows, fill=chance.randrange(used))


def rows_of_passes(branches: Branches, prompts: Sequence[list[int]]) -> list[int]:
    """Read prompts, and return how many tokens went through the model in each pass."""
    passes = []
    hidden = branches.decoder.hidden

    def watched(input_ids: Tensor, positions: Tensor, attention: Attention) -> Tensor:
        passes.append(len(input_ids))
        return hidden(input_ids, positions, attention)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(branches.decoder, "hidden", watched)
        branches.read(prompts)
    return passes


@torch.inference_mode()
def test_what_prompts_begin_with_alike_is_read_once(model: PreTrainedModel) -> None:
    whole = [*range(10, 30)]
    without = [whole[:at] + whole[at + 1 :] for at in (15, 9, 3)]
    branches = Branches(Decoder(model), capacity=1, rows_at_once=100)
    # The whole one, and each of the others from the token after the one that it lacks.
    assert rows_of_passes(branches, [whole, *without]) == [20 + (4 + 10 + 16)]
    # The last prompt of the call before goes on to serve; of an equal one the last token is left.
    assert rows_of_passes(branches, [without[-1], whole]) == [1 + 17]
    assert rows_of_passes(branches, [[9], *without]) == [1 + 19 + 10 + 16]
    few = Branches(Decoder(model), capacity=1, rows_at_once=14)
    assert rows_of_passes(few, [whole, *without]) == [20, 4 + 10, 16]
    one = Branches(Decoder(model), capacity=1)
    assert rows_of_passes(one, [whole, *without]) == [20, 4, 10, 16]


@pytest.mark.slow
@settings(deadline=None, max_examples=40)
@given(st.lists(prompts(), min_size=2, max_size=3), st.integers(1, 40))
@torch.inference_mode()
def test_prompts_may_begin_like_those_of_an_earlier_call(
    model: PreTrainedModel, calls: list[list[list[int]]], rows_at_once: int
) -> None:
    planted = Planted(model, capacity=4, rows_at_once=rows_at_once)
    beginning = calls[0][-1]
    for call in calls:
        read = [beginning[: len(beginning) // 2] + call[0], *call[1:]]
        planted.read(read, [[(-1, 3)]] * len(read))
        planted.feed([(prompt, 0) for prompt in range(len(read))])
        beginning = read[-1]


TWO = [[5, 6, 7], [8] * 12]
CHAINS: list[Tree] = [[(-1, 3), (0, 4), (1, 5)], [(-1, 3), (0, 9), (0, 2)]]


@torch.inference_mode()
def test_freed_slots_are_used_again(model: PreTrainedModel) -> None:
    planted = Planted(model, capacity=4)
    planted.read(TWO, CHAINS)
    planted.feed([(0, 0), (1, 0)])
    planted.feed([(1, 1), (1, 2)])
    planted.forget(2)
    # The first client's chain goes on from a slot that was kept, into slots that were freed.
    planted.feed([(0, 1)])
    planted.feed([(0, 2)])
    planted.forget(0)
    planted.feed([(0, 0), (0, 1), (0, 2), (1, 0)], fill=3)


@torch.inference_mode()
def test_prompts_that_are_read_later_take_the_place_of_the_first(model: PreTrainedModel) -> None:
    planted = Planted(model, capacity=3)
    planted.read(TWO, CHAINS)
    planted.feed([(0, 0), (0, 1), (0, 2)])
    planted.read([TWO[1], TWO[0], [1]], [*CHAINS, [(-1, 50)]])
    planted.feed([(0, 0), (1, 0), (2, 0)])


@torch.inference_mode()
def test_more_tokens_than_slots_are_refused_and_nothing_is_fed(model: PreTrainedModel) -> None:
    planted = Planted(model, capacity=3)
    planted.read(TWO, CHAINS)
    first = planted.feed([(0, 0), (1, 0)])
    with pytest.raises(ValueError, match="4 tokens do not fit into 3 slots"):
        planted.feed([(1, 1), (1, 2)])
    planted.forget(2)
    assert planted.branches.num_fed == 2
    planted.feed([(1, 2)])
    planted.forget(0)
    torch.testing.assert_close(planted.feed([(0, 0), (1, 0)]), first)


@torch.inference_mode()
def test_other_prompts_and_branches_are_not_seen() -> None:
    model = tiny_decoder()
    alone = Planted(model, capacity=1)
    alone.read(TWO[:1], [CHAINS[0]])
    expected = alone.feed([(0, 0)])
    broken: Any = tiny_decoder()
    # Whatever attends to token 40 is no number any more.
    broken.get_input_embeddings().weight[40] = torch.nan
    branches = Branches(Decoder(broken), capacity=8)
    branches.read([TWO[0], [40, 1]])
    found = branches.feed(
        Continuation(
            input_ids=torch.tensor([40, 3, 3]),
            depths=torch.tensor([0, 0, 0]),
            bounds=(0, 2, 3),
            path=torch.tensor([[0], [1], [2]]),
            missing=None,
        )
    )
    assert found[[0, 2]].isnan().all()
    torch.testing.assert_close(found[1:2], expected)


@torch.inference_mode()
def test_bfloat16_is_as_exact_as_one_sequence_is() -> None:
    model: Any = tiny_decoder().bfloat16()
    tree: Tree = [(node - 1, 3 + 2 * node) for node in range(10)]
    prompt = list(range(20, 50))
    branches = Branches(Decoder(model), capacity=10)
    branches.read([prompt])
    found = branches.feed(
        Continuation(
            input_ids=torch.tensor([token for _, token in tree]),
            depths=torch.arange(10),
            bounds=(0, 10),
            path=torch.arange(10).expand(10, 10).tril(),
            missing=torch.ones(10, 10, dtype=torch.bool).triu(1),
        )
    )
    assert found.dtype == torch.bfloat16
    ids = torch.tensor([[*prompt, *(token for _, token in tree)]])

    def last_ten() -> Tensor:
        hidden: Tensor = model(input_ids=ids, output_hidden_states=True).hidden_states[-1][0, -10:]
        return hidden.float()

    rounded = last_ten()
    model.float()
    exact = last_ten()
    assert 0 < (found.float() - exact).abs().mean() <= 1.2 * (rounded - exact).abs().mean()
