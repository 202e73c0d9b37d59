import tracemalloc
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.labelled_groups import (
    Labels,
    assert_mismatched_are_the_next,
    everybody,
    examples,
    populations,
)
from pkgllm.prompts.group_store import GroupStore, GroupWriter
from pkgllm.prompts.groups import Group
from pkgllm.prompts.partition.partition import count_labels
from pkgllm.prompts.partition.redistributed import draw_deal, redistribute, single_examples
from pkgllm.randomness import stream


def deal(
    natural: Mapping[str, tuple[Group, ...]], seed: int = 0, **limits: int
) -> dict[str, tuple[Group, ...]]:
    sizes = {client: count_labels(groups).examples for client, groups in natural.items()}
    return dict(redistribute(natural, sizes, stream(seed, "deal"), **limits))


class Watched(Mapping[str, tuple[Group, ...]]):
    """Remembers whose groups were read."""

    def __init__(self, groups: Mapping[str, tuple[Group, ...]]) -> None:
        self._groups = groups
        self.read: list[str] = []

    def __getitem__(self, client: str) -> tuple[Group, ...]:
        self.read.append(client)
        return self._groups[client]

    def __iter__(self) -> Iterator[str]:
        return iter(self._groups)

    def __len__(self) -> int:
        return len(self._groups)


@pytest.mark.slow
@given(populations, st.integers(0, 2**32), st.integers(1, 12))
def test_every_example_goes_to_one_client_and_all_get_as_many(
    population: Mapping[str, Labels], seed: int, at_once: int
) -> None:
    natural = everybody(population)
    dealt = deal(natural, seed, examples_at_once=at_once)
    assert list(dealt) == list(natural)
    before = sum((examples(groups) for groups in natural.values()), Counter())
    after = sum((examples(groups) for groups in dealt.values()), Counter())
    assert after == before
    sizes = [len(groups) for groups in dealt.values()]
    assert max(sizes) - min(sizes) <= 1
    for groups in dealt.values():
        assert {len(group.completions) for group in groups} <= {1}
        assert_mismatched_are_the_next(groups)


@pytest.mark.slow
@given(populations, st.integers(0, 2**32), st.integers(1, 12))
def test_the_deal_depends_on_the_seed_alone(
    population: Mapping[str, Labels], seed: int, at_once: int
) -> None:
    natural = everybody(population)
    assert deal(natural, seed, examples_at_once=at_once) == deal(natural, seed)


def test_another_seed_deals_otherwise() -> None:
    natural = everybody({f"p{n}": [[True, False, False]] * 3 for n in range(5)})
    assert deal(natural, 1) != deal(natural, 2)


def test_it_does_not_matter_whose_examples_they_were() -> None:
    natural = everybody({f"p{n}": [[True, False]] * 2 for n in range(10)})
    own = [
        sum(group.prompt.client == client for group in groups)
        for seed in range(100)
        for client, groups in deal(natural, seed).items()
    ]
    # Of four examples a tenth, 0.4, is the client's own; the deviation of a mean of 1000 is 0.02.
    assert abs(np.mean(own) - 0.4) < 0.08


def test_the_numbers_of_a_deal() -> None:
    hands = draw_deal(10, 4, stream(0, "deal"))
    assert [len(hand) for hand in hands] == [3, 3, 2, 2]
    assert sorted(np.concatenate(hands).tolist()) == list(range(10))


@pytest.mark.parametrize(("at_once", "times"), [(1000, 1), (12, 2), (6, 4), (1, 4)])
def test_groups_are_read_once_for_every_batch_of_receivers(at_once: int, times: int) -> None:
    # Four clients of six examples each, so a batch of 12 is two receivers.
    natural = Watched(everybody({f"p{n}": [[True, False, False]] * 2 for n in range(4)}))
    received = dict(
        redistribute(
            natural, dict.fromkeys(natural, 6), stream(0, "deal"), examples_at_once=at_once
        )
    )
    assert len(received) == 4
    assert max(Counter(natural.read).values()) == times


def test_single_examples_keep_prompt_and_label() -> None:
    (groups,) = everybody({"p1": [[True, False], [False]]}).values()
    singles = single_examples(groups)
    assert [group.prompt.text for group in singles] == ["p1-0", "p1-0", "p1-1"]
    assert [c.desirable for group in singles for c in group.completions] == [True, False, False]
    assert all(group.mismatched == () for group in singles)


def test_memory_is_that_of_the_examples_at_once(tmp_path: Path) -> None:
    text_bytes, clients = 20_000, [f"p{number}" for number in range(120)]
    with GroupWriter.create(tmp_path / "groups.arrow") as writer:
        for client, groups in everybody({key: [[True, False, False]] for key in clients}).items():
            long = replace(groups[0].prompt, text=client * (text_bytes // len(client)))
            writer.add(client, [replace(groups[0], prompt=long)])
    store = GroupStore.open(tmp_path / "groups.arrow")
    dealt = redistribute(store, dict.fromkeys(clients, 3), stream(0, "deal"), examples_at_once=30)
    tracemalloc.start()
    try:
        received = sum(len(groups) for _, groups in dealt)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert received == 360
    # Thirty prompts, those of the batch before, and a client that is read; not all 120.
    assert peak < 75 * text_bytes
