import json
import logging
from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from pkgllm.corpora.catalogue import Catalogue, Item
from pkgllm.errors import DataError, LeakError, ModelError, PkgllmError
from pkgllm.evaluation.metrics import METRICS
from pkgllm.evaluation.protocol import evaluate
from pkgllm.evaluation.results import EvaluationResults
from pkgllm.evaluation.scorer import ClientQueries, RankedClient, rank_queries
from pkgllm.graph.personal_graph import Fact, Moment, PersonalGraph, Provenance

CATALOGUE = Catalogue([Item(letter, letter.upper()) for letter in "abcdef"])


class Table:
    """Scores by client from a table; a client that is not in it cannot be scored."""

    def __init__(self, name: str, rows: Mapping[str, Sequence[float]]) -> None:
        self.name = name
        self.rows = rows

    def scores(self, queries: Sequence[ClientQueries]) -> NDArray[np.float64]:
        for query in queries:
            if query.client not in self.rows:
                raise ModelError(f"client {query.client!r}: the prompt is too long")
        return np.array([self.rows[query.client] for query in queries], dtype=float)


class Batched(Table):
    """Ranks several clients at once, and notes which came together."""

    def __init__(
        self, name: str, rows: Mapping[str, Sequence[float]], clients_at_once: int
    ) -> None:
        super().__init__(name, rows)
        self.clients_at_once = clients_at_once
        self.batches: list[list[str]] = []

    def rank(
        self,
        queries: Sequence[ClientQueries],
        candidates: NDArray[np.bool_],
        gold: Sequence[NDArray[np.int64]],
        *,
        top_k: int,
    ) -> Sequence[RankedClient | PkgllmError]:
        self.batches.append([query.client for query in queries])
        plain = Table(self.name, self.rows)
        return rank_queries(plain, queries, candidates, gold, top_k=top_k)


def asked(client: str, held_out: str, *, visible: str = "", seen: bool = True) -> ClientQueries:
    said = Provenance("own_answer", "conversation/1")
    facts = tuple(
        Fact("liked", tail, tail.upper(), Moment(0, place), said)
        for place, tail in enumerate(visible)
    )
    return ClientQueries(client, seen, PersonalGraph(client, facts), tuple(held_out))


QUERIES = (asked("p", "ab", visible="c"), asked("q", "f", seen=False))
# Columns              a  b  c  d  e  f
GOOD = Table("good", {"p": [9, 3, 8, 4, 2, 1], "q": [1, 2, 3, 4, 5, 6]})
FLAT = Table("flat", {"p": [0] * 6, "q": [0] * 6})


def evaluated(*scorers: Table) -> EvaluationResults:
    return evaluate(scorers, QUERIES, CATALOGUE, resamples=200, seed=0)


def test_a_small_evaluation_done_by_hand() -> None:
    found = evaluated(GOOD, FLAT)
    # Client p: candidates a b d e f. a against d e f: rank 1. b (3) against d (4) e f: rank 2.
    # Client q: f stands first of six. All equal: p has four rivals in all, so 1..4, q has 1..6.
    good, flat = found.ranked["good"], found.ranked["flat"]
    assert [client.ranks.realistic.tolist() for client in good] == [[1, 2], [1]]
    assert [client.ranks.realistic.tolist() for client in flat] == [[2.5, 2.5], [3.5]]
    assert good[0].top == ("a", "d", "b", "e", "f")
    results = found.results()
    assert (results["queries"], results["clients"]) == (3, 2)
    models = results["models"]
    assert models["good"]["hits@1"]["value"] == pytest.approx(2 / 3)
    assert models["good"]["mrr"]["value"] == pytest.approx((1 + 1 / 2 + 1) / 3)
    assert models["flat"]["hits@3"]["value"] == pytest.approx(2 / 3)
    macro = results["macro"]["models"]
    # Client p has 1/2, client q has 1.
    assert macro["good"]["hits@1"]["value"] == pytest.approx((1 / 2 + 1) / 2)
    paired = results["paired"]["good-flat"]["mrr"]
    flat_mrr = (1 / 2.5 + 1 / 2.5 + 1 / 3.5) / 3
    assert paired["difference"] == pytest.approx(2.5 / 3 - flat_mrr)
    # With two clients a resample is p twice, q twice, or both.
    of_p, of_q = 3 / 4 - 1 / 2.5, 1 - 1 / 3.5
    assert (paired["low"], paired["high"]) == (pytest.approx(of_p), pytest.approx(of_q))
    assert results["ties"] == {"good": 0.0, "flat": pytest.approx((3 + 3 + 5) / 3)}
    assert results["failures"] == {"good": 0, "flat": 0}


def test_seen_and_unseen_clients_are_told_apart() -> None:
    results = evaluated(GOOD).results()
    assert (results["seen"]["queries"], results["seen"]["clients"]) == (2, 1)
    assert results["seen"]["models"]["good"]["hits@1"] == {"value": 0.5, "low": None, "high": None}
    assert results["unseen"]["models"]["good"]["hits@1"]["value"] == 1.0
    only_seen = evaluate([GOOD], QUERIES[:1], CATALOGUE, resamples=100, seed=0).results()
    assert only_seen["unseen"] == {"queries": 0, "clients": 0, "models": {}, "paired": {}}


def test_results_and_predictions_are_ready_for_json() -> None:
    found = evaluated(GOOD, FLAT)
    results = json.loads(json.dumps(found.results(), allow_nan=False))
    assert set(results["models"]["good"]) == set(METRICS)
    assert list(results["paired"]) == ["good-flat"]
    first, second = json.loads(json.dumps(list(found.predictions()), allow_nan=False))
    assert first["client"] == "p"
    assert first["held_out"] == ["a", "b"]
    assert (first["candidates"], second["candidates"]) == (5, 6)
    assert (first["seen_in_training"], second["seen_in_training"]) == (True, False)
    assert first["models"]["good"] == {
        "ranks": [1.0, 2.0],
        "top": ["a", "d", "b", "e", "f"],
        "failed": False,
    }


def test_pairs_stand_in_the_order_of_the_scorers() -> None:
    found = evaluated(Table("tuned", GOOD.rows), FLAT, GOOD).results()
    assert list(found["paired"]) == ["tuned-flat", "tuned-good", "flat-good"]
    same = found["paired"]["tuned-good"]["mrr"]
    assert same == {"difference": 0.0, "low": 0.0, "high": 0.0}


def test_the_seed_alone_decides_the_intervals() -> None:
    assert evaluated(GOOD).results() == evaluated(GOOD).results()
    alone, together = evaluated(GOOD).results(), evaluated(GOOD, FLAT).results()
    assert alone["models"]["good"] == together["models"]["good"]


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ({"q": GOOD.rows["q"]}, "client 'p': the prompt is too long"),
        ({"p": [np.nan] * 6, "q": GOOD.rows["q"]}, "a candidate's score is NaN"),
    ],
)
def test_a_failure_counts_as_misses_and_never_as_fewer_queries(
    rows: Mapping[str, Sequence[float]], reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        found = evaluated(Table("broken", rows), GOOD)
    assert f"broken: the 2 queries of client 'p' count as misses: {reason}" in caplog.text
    results = found.results()
    # The other held-out like is filtered, so 4 of the 5 candidates compete.
    assert found.ranked["broken"][0].ranks.realistic.tolist() == [4, 4]
    assert found.ranked["broken"][0].top == ()
    assert results["models"]["broken"]["hits@1"]["value"] == pytest.approx(1 / 3)
    assert results["queries"] == 3
    assert results["failures"] == {"broken": 1, "good": 0}
    assert next(found.predictions())["models"]["broken"]["failed"]


def test_nan_outside_the_candidates_is_no_failure() -> None:
    rows = {"p": [9, 3, np.nan, 4, 2, 1], "q": GOOD.rows["q"]}
    assert evaluated(Table("partial", rows)).results()["failures"] == {"partial": 0}


def test_a_leak_is_never_counted_as_a_miss() -> None:
    class Leaking(Table):
        def scores(self, queries: Sequence[ClientQueries]) -> NDArray[np.float64]:
            raise LeakError("client 'p': item 'a' stands in its prompt")

    with pytest.raises(LeakError, match="item 'a' stands in its prompt"):
        evaluated(Leaking("leaking", {}))


def test_every_client_is_reported_as_it_is_done() -> None:
    done: list[str] = []
    evaluate([GOOD, FLAT], QUERIES, CATALOGUE, resamples=100, seed=0, on_client=done.append)
    assert done == ["p", "q"]


# The later ones have seen one or two items, which are no candidates then.
MANY = tuple(
    asked(f"p{place}", "abcdef"[place % 6], visible="abcdefabc"[place + 1 : place + 1 + place // 3])
    for place in range(7)
)
ROWS = {
    query.client: np.random.default_rng(place).permutation(6).astype(float).tolist()
    for place, query in enumerate(MANY)
}


def test_scorers_with_and_without_batches_are_asked_side_by_side() -> None:
    three, two = Batched("three", ROWS, 3), Batched("two", ROWS, 2)
    plain = Table("plain", ROWS)
    done: list[str] = []
    found = evaluate(
        [two, plain, three], MANY, CATALOGUE, resamples=100, seed=0, on_client=done.append
    )
    clients = [query.client for query in MANY]
    assert three.batches == two.batches == [clients[:3], clients[3:6], clients[6:]]
    assert done == clients
    by_hand, best = [], []
    for query in MANY:
        scores = {
            item.id: score
            for item, score in zip(CATALOGUE.items, ROWS[query.client], strict=True)
            if item.id not in query.graph.tails
        }
        # One gold item each, no ties: the rank is the number of scores at least as high.
        by_hand.append([sum(score >= scores[query.held_out[0]] for score in scores.values())])
        best.append(max(scores, key=scores.__getitem__))
    for name in ("three", "two", "plain"):
        assert [ranks.ranks.realistic.tolist() for ranks in found.ranked[name]] == by_hand
        assert [ranks.top[0] for ranks in found.ranked[name]] == best
    assert [row["client"] for row in found.predictions()] == clients


def test_a_failure_inside_a_batch_stands_in_its_own_place(
    caplog: pytest.LogCaptureFixture,
) -> None:
    rows = {client: row for client, row in ROWS.items() if client not in ("p1", "p6")}
    rows["p4"] = [np.nan] * 6
    broken = Batched("broken", rows, 4)
    with caplog.at_level(logging.WARNING):
        found = evaluate([broken, Table("sound", ROWS)], MANY, CATALOGUE, resamples=100, seed=0)
    # Behind all candidates: six items but for those that were seen.
    worst = {1: 6, 4: 5, 6: 4}
    pairs = zip(found.ranked["broken"], found.ranked["sound"], strict=True)
    for place, (ranks, exact) in enumerate(pairs):
        assert ranks.failed == (place in worst)
        expected = [worst[place]] if ranks.failed else exact.ranks.realistic.tolist()
        assert ranks.ranks.realistic.tolist() == expected
        assert ranks.top == (() if ranks.failed else exact.top)
    assert found.results()["failures"] == {"broken": 3, "sound": 0}
    named = [message.split("'")[1] for message in caplog.messages]
    assert named == ["p1", "p4", "p6"]


def test_bad_queries_are_refused_before_anything_is_scored() -> None:
    done: list[str] = []
    with pytest.raises(DataError, match="client 'r': the held-out item 'zz' is not in the"):
        evaluate(
            [GOOD],
            [*QUERIES, ClientQueries("r", True, PersonalGraph("r", ()), ("zz",))],
            CATALOGUE,
            resamples=100,
            seed=0,
            on_client=done.append,
        )
    assert done == []


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(DataError, match="there is no client to evaluate"):
        evaluate([GOOD], [], CATALOGUE, resamples=100, seed=0)
    with pytest.raises(ValueError, match="at least one scorer"):
        evaluated()
    with pytest.raises(ValueError, match=r"every scorer must stand once, got \['good', 'good'\]"):
        evaluated(GOOD, GOOD)
    with pytest.raises(ValueError, match="every client must stand once"):
        evaluate([GOOD], [QUERIES[0]] * 2, CATALOGUE, resamples=100, seed=0)
    with pytest.raises(ValueError, match=r"scores of 'short' must have shape \(1, 6\)"):
        evaluated(Table("short", {"p": [1.0], "q": [1.0]}))


def test_a_ranker_that_forgets_a_client_is_refused() -> None:
    class Forgetful(Batched):
        def rank(
            self,
            queries: Sequence[ClientQueries],
            candidates: NDArray[np.bool_],
            gold: Sequence[NDArray[np.int64]],
            *,
            top_k: int,
        ) -> Sequence[RankedClient | PkgllmError]:
            return super().rank(queries, candidates, gold, top_k=top_k)[1:]

    queries = [asked("p", "a"), asked("q", "b")]
    rows = {"p": range(6), "q": range(6)}
    with pytest.raises(ValueError, match="'f' must answer for 2 clients, got 1 answers"):
        evaluate([Forgetful("f", rows, 2)], queries, CATALOGUE, resamples=100, seed=0)
