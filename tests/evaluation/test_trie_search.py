import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pkgllm.evaluation.ranking.trie import CatalogueTrie
from pkgllm.evaluation.ranking.trie_search import TIE_NATS, Rows, TrieSearch
from pkgllm.evaluation.ranks import best_columns, rank_gold

TERMINATOR = 0


class TableReader:
    """Knows the log-probability of each token after each client's prompt and each beginning.

    Values are whole multiples of ``step``, so that sums are exact; equal scores are the rule where
    there are few ``steps``.
    """

    def __init__(
        self,
        seeds: Sequence[int],
        step: float,
        *,
        steps: int = 4,
        capacity: int = 10_000,
        rows_at_once: int = 10_000,
        impossible: bool = False,
    ) -> None:
        self.seeds = seeds
        self.step = step
        self.steps = steps
        self.capacity = capacity
        self.rows_at_once = rows_at_once
        self.impossible = impossible
        self.slots: list[tuple[int, tuple[int, ...]]] = []
        """Client and beginning that each slot holds."""
        self.times_fed: Counter[tuple[int, tuple[int, ...]]] = Counter()
        self.num_passes = 0

    def log_prob(self, client: int, beginning: tuple[int, ...], token: int) -> float:
        generator = np.random.default_rng([self.seeds[client], token, *beginning])
        drawn = int(generator.integers(0, self.steps))
        return -np.inf if self.impossible and drawn == self.steps - 1 else -self.step * drawn

    def first_log_probs(self, tokens: NDArray[np.int64]) -> NDArray[np.float32]:
        found = [
            [self.log_prob(client, (), token) for token in tokens.tolist()]
            for client in range(len(self.seeds))
        ]
        return np.array(found, dtype=np.float32)

    def feed(self, rows: Rows) -> NDArray[np.float32]:
        first, count = len(self.slots), len(rows.input_ids)
        assert 1 <= count <= self.rows_at_once
        assert first + count <= self.capacity
        assert (np.diff(rows.clients) >= 0).all()
        assert rows.path.shape == (count, rows.depths.max() + 1)
        self.slots += [(-1, ())] * count
        for row in np.argsort(rows.depths, kind="stable").tolist():
            client, depth = int(rows.clients[row]), int(rows.depths[row])
            *above, own = rows.path[row, : depth + 1].tolist()
            assert own == first + row
            assert (rows.path[row, depth + 1 :] == -1).all()
            beginning = self.slots[above[-1]][1] if above else ()
            # Each slot holds this client's ancestor of that depth: nothing missing, nothing else.
            held = [self.slots[slot] for slot in above]
            assert held == [(client, beginning[: end + 1]) for end in range(depth)]
            assert rows.input_ids[row] != TERMINATOR
            self.slots[own] = (client, (*beginning, int(rows.input_ids[row])))
        self.times_fed.update(self.slots[first:])
        self.num_passes += 1
        owners = np.repeat(np.arange(count), np.diff(rows.child_offsets))
        found = [
            self.log_prob(*self.slots[first + row], token)
            for row, token in zip(owners.tolist(), rows.child_tokens.tolist(), strict=True)
        ]
        return np.array(found, dtype=np.float32)

    def forget(self, num_kept: int) -> None:
        assert 0 <= num_kept <= len(self.slots)
        del self.slots[num_kept:]

    def score(self, client: int, title: Sequence[int]) -> float:
        return sum(
            self.log_prob(client, tuple(title[:end]), token) for end, token in enumerate(title)
        )

    def num_fed(self) -> list[int]:
        counts = [0] * len(self.seeds)
        for (client, _), times in self.times_fed.items():
            counts[client] += times
        return counts


@dataclass
class Case:
    titles: list[list[int]]
    trie: CatalogueTrie
    reader: TableReader

    @property
    def clients(self) -> range:
        return range(len(self.reader.seeds))

    @property
    def scores(self) -> NDArray[np.float64]:
        return np.array(
            [[self.reader.score(client, title) for title in self.titles] for client in self.clients]
        )

    def search(self) -> TrieSearch:
        return TrieSearch(
            self.trie,
            self.reader,
            where=[f"client 'p{client}'" for client in self.clients],
            rows_at_once=self.reader.rows_at_once,
        )


def trie_of(titles: Sequence[Sequence[int]]) -> CatalogueTrie:
    return CatalogueTrie(titles, names=["film"] * len(titles))


@st.composite
def searches(draw: st.DrawFn) -> Case:
    # Three tokens, so that titles share beginnings, are prefixes of others, and repeat.
    title = st.lists(st.integers(1, 3), min_size=1, max_size=6)
    titles = [[*found, TERMINATOR] for found in draw(st.lists(title, min_size=1, max_size=25))]
    trie = trie_of(titles)
    seeds = draw(st.lists(st.integers(0, 1000), min_size=1, max_size=4))
    most = len(seeds) * len(trie.inputs)
    reader = TableReader(
        seeds,
        # With the smallest step some scores differ by less than what counts as a tie, some by more.
        draw(st.sampled_from([0.0, 2.0**-15, 0.5, 4.0])),
        capacity=draw(st.integers(trie.longest_input, max(trie.longest_input, most))),
        rows_at_once=draw(st.integers(1, most + 1)),
        impossible=draw(st.booleans()),
    )
    return Case(titles, trie, reader)


@st.composite
def masks(draw: st.DrawFn, size: int) -> NDArray[np.bool_]:
    mask = np.array(draw(st.lists(st.booleans(), min_size=size, max_size=size)))
    mask[draw(st.integers(0, size - 1))] = True
    return mask


@st.composite
def golds(draw: st.DrawFn, candidates: NDArray[np.bool_]) -> NDArray[np.int64]:
    columns = st.sampled_from(np.flatnonzero(candidates).tolist())
    return np.array(draw(st.lists(columns, max_size=4, unique=True)), dtype=np.int64)


@pytest.mark.slow
@settings(deadline=None)
@given(searches())
def test_all_titles_get_the_sum_along_their_path(case: Case) -> None:
    search = case.search()
    search.visit(np.ones((len(case.clients), len(case.titles)), dtype=bool))
    assert search.scores.tolist() == case.scores.tolist()
    assert search.errors == {}
    assert search.num_fed.tolist() == case.reader.num_fed()
    assert (search.num_fed >= len(case.trie.inputs)).all()


@pytest.mark.slow
@settings(deadline=None, max_examples=200)
@given(searches(), st.data())
def test_what_matters_ranks_and_lists_as_all_scores_do(case: Case, data: st.DataObject) -> None:
    candidates = np.stack([data.draw(masks(len(case.titles))) for _ in case.clients])
    gold = [data.draw(golds(mask)) for mask in candidates]
    top_k = data.draw(st.integers(0, len(case.titles) + 2))
    search, every = case.search(), case.scores
    search.visit_what_matters(candidates, gold, top_k=top_k)
    assert search.errors == {}
    assert search.num_fed.tolist() == case.reader.num_fed()
    for client in case.clients:
        expected, found = (
            rank_gold(scores[client], candidates[client], gold[client], tolerance=TIE_NATS)
            for scores in (every, search.scores)
        )
        assert found.optimistic.tolist() == expected.optimistic.tolist()
        assert found.pessimistic.tolist() == expected.pessimistic.tolist()
        best, listed = (
            best_columns(scores[client], candidates[client], top_k).tolist()
            for scores in (every, search.scores)
        )
        assert listed == best
    visited = np.isfinite(search.scores)
    assert search.scores[visited].tolist() == every[visited].tolist()


@pytest.mark.slow
@settings(deadline=None, max_examples=100)
@given(searches(), st.data())
def test_where_all_slots_suffice_nothing_is_fed_twice(case: Case, data: st.DataObject) -> None:
    case.reader.capacity = len(case.clients) * len(case.trie.inputs)
    candidates = np.stack([data.draw(masks(len(case.titles))) for _ in case.clients])
    gold = [data.draw(golds(mask)) for mask in candidates]
    case.search().visit_what_matters(candidates, gold, top_k=data.draw(st.integers(0, 5)))
    assert set(case.reader.times_fed.values()) <= {1}
    # Only what lies on the way to a candidate of that client.
    for client, beginning in case.reader.times_fed:
        below = [title[: len(beginning)] == list(beginning) for title in case.titles]
        assert (np.array(below) & candidates[client]).any()


@pytest.mark.slow
@settings(deadline=None, max_examples=100)
@given(searches(), st.data())
def test_all_that_reaches_a_floor_is_found(case: Case, data: st.DataObject) -> None:
    wanted = np.stack([data.draw(masks(len(case.titles))) for _ in case.clients])
    steps = np.array([data.draw(st.integers(0, 12)) for _ in case.clients])
    floors = -case.reader.step * steps
    search, every = case.search(), case.scores
    search.visit(wanted, floors=floors)
    reaching = wanted & (every >= floors[:, None])
    assert search.scores[reaching].tolist() == every[reaching].tolist()


@pytest.mark.slow
@settings(deadline=None, max_examples=100)
@given(searches(), st.data())
def test_a_client_whose_model_has_diverged_fails_alone(case: Case, data: st.DataObject) -> None:
    broken = data.draw(st.sampled_from(case.clients))
    beginnings = [tuple(title[:end]) for title in case.titles for end in range(len(title))]
    where = data.draw(st.sampled_from(beginnings))
    which = data.draw(st.sampled_from([{TERMINATOR}, {1}, {TERMINATOR, 1, 2, 3}]))

    class Diverged(TableReader):
        def log_prob(self, client: int, beginning: tuple[int, ...], token: int) -> float:
            if client == broken and beginning == where and token in which:
                return np.nan
            return super().log_prob(client, beginning, token)

    case.reader.__class__ = Diverged
    candidates = np.stack([data.draw(masks(len(case.titles))) for _ in case.clients])
    gold = [data.draw(golds(mask)) for mask in candidates]
    top_k = data.draw(st.integers(1, 5))
    search, every = case.search(), case.scores
    search.visit_what_matters(candidates, gold, top_k=top_k)
    if gold[broken].size and np.isnan(every[broken, gold[broken]]).any():
        assert list(search.errors) == [broken]
    assert set(search.errors) <= {broken}
    for client in set(case.clients) - set(search.errors):
        exact = np.nan_to_num(every[client], nan=-np.inf)
        # A client that is not in errors never met what is no number.
        assert not np.isnan(search.scores[client, candidates[client]]).any()
        if client == broken:
            continue
        expected, found = (
            rank_gold(scores, candidates[client], gold[client], tolerance=TIE_NATS)
            for scores in (exact, search.scores[client])
        )
        assert found.realistic.tolist() == expected.realistic.tolist()
        listed = best_columns(search.scores[client], candidates[client], top_k)
        assert listed.tolist() == best_columns(exact, candidates[client], top_k).tolist()


WIDE = [[*title, TERMINATOR] for title in itertools.product(range(1, 7), repeat=4)]


@pytest.mark.slow
@pytest.mark.parametrize(("capacity", "rows_at_once"), [(9, 4), (100, 30), (9000, 100)])
def test_a_small_part_of_the_catalogue_decides_good_ranks(capacity: int, rows_at_once: int) -> None:
    trie = trie_of(WIDE)
    everything = np.ones((3, len(WIDE)), dtype=bool)

    def new_case() -> Case:
        reader = TableReader([0, 1, 2], 1.0, capacity=capacity, rows_at_once=rows_at_once)
        return Case(WIDE, trie, reader)

    every = new_case().scores
    best = [best_columns(scores, everything[0], 20) for scores in every]
    # 1296 titles; 6 + 36 + 216 + 1296 inputs.
    assert len(trie.inputs) == 1554
    # The worst gold item asked for, the length of the list, and the largest share of the inputs.
    for start, stop, top_k, share in ((0, 1, 1, 0.1), (9, 10, 10, 0.2), (0, 0, 20, 0.5)):
        case = new_case()
        search = case.search()
        search.visit_what_matters(everything, [found[start:stop] for found in best], top_k=top_k)
        distinct = Counter(client for client, _ in case.reader.times_fed)
        assert all(distinct[client] <= share * len(trie.inputs) for client in case.clients)
        for scores, found in zip(every, search.scores, strict=True):
            listed = best_columns(found, everything[0], top_k)
            assert listed.tolist() == best_columns(scores, everything[0], top_k).tolist()


@pytest.mark.parametrize("seed", range(12))
def test_a_list_of_any_length_holds_the_best(seed: int) -> None:
    titles = [[*title, TERMINATOR] for title in itertools.product(range(1, 5), repeat=3)]
    trie = trie_of(titles)
    everything = np.ones((2, len(titles)), dtype=bool)

    def new_case() -> Case:
        reader = TableReader([seed, seed + 100], 2.0**-6, steps=400, capacity=30, rows_at_once=8)
        return Case(titles, trie, reader)

    every = new_case().scores
    for top_k in (1, 2, 3, 4, 6):
        best = [best_columns(scores, everything[0], top_k) for scores in every]
        # With the last but one of a list held out, one more has to be found.
        search = new_case().search()
        search.visit_what_matters(everything, [best[0][:0], best[1][-2:-1]], top_k=top_k)
        for client, expected in enumerate(best):
            listed = best_columns(search.scores[client], everything[0], top_k)
            assert listed.tolist() == expected.tolist()


def test_subtrees_without_a_candidate_are_not_visited() -> None:
    case = Case(WIDE, trie_of(WIDE), TableReader([0, 1], 0.5))
    search = case.search()
    search.visit(np.array([[title[0] == first for title in WIDE] for first in (1, 6)]))
    # One node after the prompt, then 6, 36 and 216.
    assert search.num_fed.tolist() == [259, 259]
    assert np.isfinite(search.scores).sum(axis=1).tolist() == [216, 216]


def test_what_fits_into_one_pass_takes_one() -> None:
    case = Case(WIDE, trie_of(WIDE), TableReader([0, 1], 0.5, rows_at_once=3108))
    case.search().visit(np.ones((2, len(WIDE)), dtype=bool))
    assert case.reader.num_passes == 1


def test_a_title_just_below_the_gold_one_still_ties_with_it() -> None:
    class Near(TableReader):
        def log_prob(self, client: int, beginning: tuple[int, ...], token: int) -> float:
            return {1: -1.0, 2: -1.0 - TIE_NATS / 2, 3: -1.0 - 2 * TIE_NATS}.get(token, 0.0)

    # The first is held out; the others are decided by a node with more to come below it.
    titles = [[1, TERMINATOR], [2, 4, TERMINATOR], [3, 4, TERMINATOR]]
    search = Case(titles, trie_of(titles), Near([0], 0.0, rows_at_once=1)).search()
    everything, gold = np.ones((1, 3), dtype=bool), np.array([0])
    search.visit_what_matters(everything, [gold], top_k=0)
    ranks = rank_gold(search.scores[0], everything[0], gold, tolerance=TIE_NATS)
    assert (ranks.optimistic.tolist(), ranks.pessimistic.tolist()) == ([1], [2])


def test_a_title_of_probability_zero_ranks_last() -> None:
    class Impossible(TableReader):
        def log_prob(self, client: int, beginning: tuple[int, ...], token: int) -> float:
            return -np.inf if token == 3 else super().log_prob(client, beginning, token)

    titles = [[1, TERMINATOR], [3, TERMINATOR], [2, 3, TERMINATOR], [2, TERMINATOR]]
    search = Case(titles, trie_of(titles), Impossible([0], 0.5)).search()
    everything = np.ones((1, 4), dtype=bool)
    search.visit_what_matters(everything, [np.array([1])], top_k=2)
    ranks = rank_gold(search.scores[0], everything[0], np.array([1]))
    assert (ranks.optimistic.tolist(), ranks.pessimistic.tolist()) == ([3], [4])


class Broken(TableReader):
    """Its second client's token 3 has no probability."""

    def log_prob(self, client: int, beginning: tuple[int, ...], token: int) -> float:
        return np.nan if (client, token) == (1, 3) else super().log_prob(client, beginning, token)


@pytest.mark.parametrize("column", [1, 2, 3])
@pytest.mark.parametrize("asked_later", [False, True])
def test_nan_is_an_error_only_where_a_title_is_asked_for(column: int, asked_later: bool) -> None:
    titles = [[1, TERMINATOR], [1, 3, TERMINATOR], [3, TERMINATOR], [1, 3, 2, TERMINATOR]]
    case = Case(titles, trie_of(titles), Broken([0, 1, 2], 0.5))
    sound = np.tile(np.array([True, False, False, False]), (3, 1))
    asked = sound.copy()
    asked[:, column] = True
    search = case.search()
    if asked_later:
        search.visit(sound)
        assert search.errors == {}
        assert search.scores[:, 0].tolist() == case.scores[:, 0].tolist()
    search.visit(asked)
    assert list(search.errors) == [1]
    message = str(search.errors[1])
    assert message.startswith("client 'p1': log-probabilities of titles must be numbers, got NaN")
    for client in (0, 2):
        assert search.scores[client, asked[client]].tolist() == (
            case.scores[client, asked[client]].tolist()
        )


def test_a_client_that_failed_is_not_visited_further() -> None:
    titles = [[3, *rest, TERMINATOR] for rest in itertools.product((1, 2), repeat=3)]
    case = Case(titles, trie_of(titles), Broken([0, 1], 0.5))
    search = case.search()
    search.visit_what_matters(
        np.ones((2, len(titles)), dtype=bool), [np.array([0]), np.array([0])], top_k=3
    )
    assert list(search.errors) == [1]
    assert search.num_fed[0] > 0
    assert search.num_fed[1] == 0


def test_slots_for_less_than_the_longest_title_are_refused() -> None:
    case = Case(WIDE, trie_of(WIDE), TableReader([0], 0.5, capacity=3))
    with pytest.raises(ValueError, match="the longest title takes 4 slots, got 3"):
        case.search()
