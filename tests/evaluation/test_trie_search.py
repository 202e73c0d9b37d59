import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pkgllm.errors import ModelError
from pkgllm.evaluation.ranks import best_columns, rank_gold
from pkgllm.evaluation.trie import CatalogueTrie, Chunk
from pkgllm.evaluation.trie_search import TIE_NATS, TrieSearch

TERMINATOR = 0


class TableReader:
    """Knows the log-probability of each token after each beginning, and reads nothing but masks.

    Values are whole multiples of ``step``, so that sums are exact; equal scores are the rule where
    there are few ``steps``.
    """

    def __init__(
        self, seed: int, step: float, *, steps: int = 4, longest: int = 0, chunk_tokens: int = 1
    ) -> None:
        self.seed = seed
        self.step = step
        self.steps = steps
        self.most_fed = max(longest, chunk_tokens)
        self.fed: list[int] = []

    def log_prob(self, beginning: tuple[int, ...], token: int) -> float:
        generator = np.random.default_rng([self.seed, token, *beginning])
        return -self.step * int(generator.integers(0, self.steps))

    def first_log_probs(self, tokens: NDArray[np.int64]) -> NDArray[np.float32]:
        return np.array([self.log_prob((), int(token)) for token in tokens], dtype=np.float32)

    def feed(self, chunk: Chunk) -> NDArray[np.float32]:
        self.fed += chunk.input_ids.tolist()
        assert len(self.fed) <= self.most_fed
        assert TERMINATOR not in self.fed
        found = []
        for row, token in zip(chunk.child_rows, chunk.child_tokens, strict=True):
            visible = np.flatnonzero(chunk.visible[chunk.num_carried + row])
            assert len(visible) == chunk.depths[chunk.num_carried + row] + 1
            # Ancestors are always fed before, in order.
            beginning = tuple(self.fed[column] for column in visible)
            found.append(self.log_prob(beginning, int(token)))
        return np.array(found, dtype=np.float32)

    def forget(self) -> None:
        self.fed = []

    def score(self, title: list[int]) -> float:
        return sum(self.log_prob(tuple(title[:end]), token) for end, token in enumerate(title))


@st.composite
def searches(draw: st.DrawFn) -> tuple[list[list[int]], CatalogueTrie, TableReader]:
    # Three tokens, so that titles share beginnings, are prefixes of others, and repeat.
    title = st.lists(st.integers(1, 3), min_size=1, max_size=6)
    titles = [[*found, TERMINATOR] for found in draw(st.lists(title, min_size=1, max_size=25))]
    chunk_tokens = draw(st.integers(1, 30))
    names = [f"film {column}" for column in range(len(titles))]
    trie = CatalogueTrie(titles, names=names, chunk_tokens=chunk_tokens)
    # With the smallest step some scores differ by less than what counts as a tie, some by more.
    step = draw(st.sampled_from([0.0, 2.0**-15, 0.5, 4.0]))
    reader = TableReader(
        draw(st.integers(0, 1000)), step, longest=trie.longest_input, chunk_tokens=chunk_tokens
    )
    return titles, trie, reader


def masks(draw: st.DrawFn, size: int) -> NDArray[np.bool_]:
    mask = np.array(draw(st.lists(st.booleans(), min_size=size, max_size=size)))
    mask[draw(st.integers(0, size - 1))] = True
    return mask


def new_search(trie: CatalogueTrie, reader: TableReader) -> TrieSearch:
    return TrieSearch(trie, reader, where="client 'p'")


@settings(deadline=None)
@given(searches())
def test_all_titles_get_the_sum_along_their_path(
    case: tuple[list[list[int]], CatalogueTrie, TableReader],
) -> None:
    titles, trie, reader = case
    search = new_search(trie, reader)
    search.visit(np.ones(len(titles), dtype=bool))
    assert search.scores.tolist() == [reader.score(title) for title in titles]
    assert search.num_fed >= len(trie.inputs)
    assert reader.fed == []


@settings(deadline=None, max_examples=200)
@given(searches(), st.data())
def test_what_matters_ranks_and_lists_as_all_scores_do(
    case: tuple[list[list[int]], CatalogueTrie, TableReader], data: st.DataObject
) -> None:
    titles, trie, reader = case
    candidates = data.draw(st.composite(masks)(len(titles)))
    columns = st.sampled_from(np.flatnonzero(candidates).tolist())
    gold = np.array(data.draw(st.lists(columns, max_size=4, unique=True)), dtype=np.int64)
    top_k = data.draw(st.integers(0, len(titles) + 2))
    search = new_search(trie, reader)
    search.visit_what_matters(candidates, gold, top_k=top_k)
    every = np.array([reader.score(title) for title in titles])
    expected, found = (
        rank_gold(scores, candidates, gold, tolerance=TIE_NATS) for scores in (every, search.scores)
    )
    assert found.optimistic.tolist() == expected.optimistic.tolist()
    assert found.pessimistic.tolist() == expected.pessimistic.tolist()
    best = best_columns(every, candidates, top_k)
    assert best_columns(search.scores, candidates, top_k).tolist() == best.tolist()
    visited = np.isfinite(search.scores)
    assert search.scores[visited].tolist() == every[visited].tolist()


@settings(deadline=None, max_examples=50)
@given(searches(), st.integers(1, 8))
def test_a_beam_finds_as_many_titles_as_it_is_wide(
    case: tuple[list[list[int]], CatalogueTrie, TableReader], width: int
) -> None:
    titles, trie, reader = case
    search = new_search(trie, reader)
    search.visit(np.ones(len(titles), dtype=bool), width=width)
    assert np.isfinite(search.scores).sum() >= min(width, len(titles))


@settings(deadline=None, max_examples=50)
@given(searches(), st.data())
def test_all_that_reaches_a_floor_is_found(
    case: tuple[list[list[int]], CatalogueTrie, TableReader], data: st.DataObject
) -> None:
    titles, trie, reader = case
    wanted = data.draw(st.composite(masks)(len(titles)))
    floor = -reader.step * data.draw(st.integers(0, 12))
    search = new_search(trie, reader)
    search.visit(wanted, floor=floor)
    every = np.array([reader.score(title) for title in titles])
    reaching = wanted & (every >= floor)
    assert search.scores[reaching].tolist() == every[reaching].tolist()


WIDE = [[*title, TERMINATOR] for title in itertools.product(range(1, 7), repeat=4)]


@pytest.mark.parametrize("chunk_tokens", [100, 2000])
def test_a_small_part_of_the_catalogue_decides_good_ranks(chunk_tokens: int) -> None:
    trie = CatalogueTrie(WIDE, names=["film"] * len(WIDE), chunk_tokens=chunk_tokens)
    reader = TableReader(0, 1.0, chunk_tokens=chunk_tokens)
    everything = np.ones(len(WIDE), dtype=bool)
    whole = new_search(trie, reader)
    whole.visit(everything)
    best = best_columns(whole.scores, everything, 100)
    # 1296 titles; 6 + 36 + 216 + 1296 inputs.
    assert whole.num_fed >= len(trie.inputs) == 1554
    # The worst gold item asked for, the length of the list, and the largest share of the inputs.
    for gold, top_k, share in ((best[:1], 1, 0.1), (best[9:10], 10, 0.2), (best[:0], 20, 0.5)):
        search = new_search(trie, reader)
        search.visit_what_matters(everything, gold, top_k=top_k)
        assert search.num_fed <= share * len(trie.inputs)
        found = best_columns(search.scores, everything, top_k)
        assert whole.scores[found].tolist() == whole.scores[best[:top_k]].tolist()


@pytest.mark.parametrize("seed", range(12))
def test_a_list_of_any_length_holds_the_best(seed: int) -> None:
    titles = [[*title, TERMINATOR] for title in itertools.product(range(1, 5), repeat=3)]
    trie = CatalogueTrie(titles, names=["film"] * len(titles), chunk_tokens=30)
    reader = TableReader(seed, 2.0**-6, steps=400, chunk_tokens=30)
    everything = np.ones(len(titles), dtype=bool)
    whole = new_search(trie, reader)
    whole.visit(everything)
    for top_k in (1, 2, 3, 4, 6):
        best = best_columns(whole.scores, everything, top_k)
        # With the last but one of the list held out, one more has to be found.
        for gold in (best[:0], best[-2:-1]):
            search = new_search(trie, reader)
            search.visit_what_matters(everything, gold, top_k=top_k)
            assert best_columns(search.scores, everything, top_k).tolist() == best.tolist()


def test_subtrees_without_a_candidate_are_not_visited() -> None:
    trie = CatalogueTrie(WIDE, names=["film"] * len(WIDE))
    search = new_search(trie, TableReader(0, 0.5, chunk_tokens=512))
    search.visit(np.array([title[0] == 1 for title in WIDE]))
    # One node after the prompt, then 6, 36 and 216.
    assert search.num_fed == 259
    assert np.isfinite(search.scores).sum() == 216


def test_a_title_of_probability_zero_ranks_last() -> None:
    class Impossible(TableReader):
        def log_prob(self, beginning: tuple[int, ...], token: int) -> float:
            return -np.inf if token == 3 else super().log_prob(beginning, token)

    titles = [[1, TERMINATOR], [3, TERMINATOR], [2, 3, TERMINATOR], [2, TERMINATOR]]
    trie = CatalogueTrie(titles, names=["film"] * 4)
    search = new_search(trie, Impossible(0, 0.5, chunk_tokens=512))
    everything = np.ones(4, dtype=bool)
    search.visit_what_matters(everything, np.array([1]), top_k=2)
    ranks = rank_gold(search.scores, everything, np.array([1]))
    assert (ranks.optimistic.tolist(), ranks.pessimistic.tolist()) == ([3], [4])


def test_nan_is_an_error_only_where_a_title_is_asked_for() -> None:
    class Broken(TableReader):
        def log_prob(self, beginning: tuple[int, ...], token: int) -> float:
            return np.nan if token == 3 else super().log_prob(beginning, token)

    titles = [[1, TERMINATOR], [1, 3, TERMINATOR], [3, TERMINATOR], [2, TERMINATOR]]
    trie = CatalogueTrie(titles, names=["film"] * 4)
    sound = np.array([True, False, False, True])
    reader = Broken(0, 0.5, chunk_tokens=512)
    search = new_search(trie, reader)
    search.visit_what_matters(sound, np.array([0]), top_k=2)
    assert np.isfinite(search.scores[sound]).all()
    for column in (1, 2):
        asked = sound.copy()
        asked[column] = True
        with pytest.raises(ModelError, match="client 'p': log-probabilities of titles must be nu"):
            new_search(trie, reader).visit(asked)
        assert reader.fed == []
