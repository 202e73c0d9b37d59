import json
from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pkgllm.corpora.catalogue import Catalogue, Item
from pkgllm.evaluation.metrics import METRICS, chance_reciprocal_rank
from pkgllm.evaluation.ranks import Ranks
from pkgllm.evaluation.results import DECILE_METRICS, ClientRanks, EvaluationResults
from pkgllm.evaluation.scorer import ClientQueries
from pkgllm.graph.personal_graph import Fact, Moment, PersonalGraph, Provenance

CATALOGUE = Catalogue(
    [
        Item(f"{n:02}", f"Film {n}", {"genre": (("Drama", "War", "Comedy")[n % 3],)})
        for n in range(90)
    ]
)
IDS = [item.id for item in CATALOGUE]
MODELS = ("tuned", "base", "popularity")


def asked(client: str, liked: Sequence[str], held_out: Sequence[str], seen: bool) -> ClientQueries:
    said = Provenance("own_answer", "conversation/1")
    facts = tuple(
        Fact("liked" if place % 2 == 0 else "disliked", tail, tail, Moment(0, place), said)
        for place, tail in enumerate(liked)
    )
    return ClientQueries(client, seen, PersonalGraph(client, facts), tuple(held_out))


def evaluation(
    num_clients: int = 12, *, likes: NDArray[np.float64] | None = None
) -> EvaluationResults:
    """Clients of one to five queries and unlike numbers of candidates, with random ranks."""
    generator = np.random.default_rng(0)
    queries, ranked = [], {name: list[ClientRanks]() for name in MODELS}
    for index in range(num_clients):
        visible, size = 3 + 4 * index, 1 + index % 5
        order = [IDS[column] for column in generator.permutation(90)]
        held_out = order[visible : visible + size]
        queries.append(asked(f"client{index}", order[:visible], held_out, index % 3 != 0))
        last = 90 - visible - size + 1
        for name in MODELS:
            best = generator.integers(1, last + 1, size=size)
            worst = np.minimum(best + generator.integers(2, size=size), last)
            failed = name == "base" and index == 4
            top = () if failed else tuple(generator.permutation(order[visible:])[:10].tolist())
            ranked[name].append(ClientRanks(Ranks(best, worst), top, failed))
    return EvaluationResults(
        queries=tuple(queries),
        num_candidates=tuple(90 - len(query.graph.facts) for query in queries),
        ranked={name: tuple(found) for name, found in ranked.items()},
        catalogue=CATALOGUE,
        training_likes=likes,
        resamples=200,
        seed=0,
    )


def by_hand(metric: str, ranks: Sequence[float], sizes: Sequence[int]) -> float:
    """A metric over some queries from its definition, one query after the other."""
    if metric == "adjusted_mrr":
        chance = [sum(1 / place for place in range(1, size + 1)) / size for size in sizes]
        mean, expected = np.mean([1 / rank for rank in ranks]), np.mean(chance)
        return float((mean - expected) / (1 - expected))
    if metric == "mrr":
        return float(np.mean([1 / rank for rank in ranks]))
    name, k = metric.split("@")
    gains = [1.0 if name == "hits" else 1 / np.log2(1 + rank) for rank in ranks]
    within = [rank <= int(k) for rank in ranks]
    return float(np.mean([gain * near for gain, near in zip(gains, within, strict=True)]))


def values(tables: dict[str, Any], model: str) -> dict[str, float]:
    return {metric: found["value"] for metric, found in tables["models"][model].items()}


def test_every_metric_can_be_computed_again_from_the_predictions() -> None:
    found = evaluation()
    results = json.loads(json.dumps(found.results(), allow_nan=False))
    rows = json.loads(json.dumps(list(found.predictions()), allow_nan=False))
    groups = {"seen": [row for row in rows if row["seen_in_training"]]}
    groups["unseen"] = [row for row in rows if not row["seen_in_training"]]
    for model in MODELS:

        def of(metric: str, rows: list[dict[str, Any]], model: str = model) -> float:
            ranks = [rank for row in rows for rank in row["models"][model]["ranks"]]
            sizes = [
                row["candidates"] - len(row["held_out"]) + 1
                for row in rows
                for _ in row["held_out"]
            ]
            return by_hand(metric, ranks, sizes)

        assert values(results, model) == pytest.approx({name: of(name, rows) for name in METRICS})
        for part, members in groups.items():
            assert values(results[part], model) == pytest.approx(
                {name: of(name, members) for name in METRICS}
            )
        # Macro: each client's own value, all clients alike, the adjusted MRR like the others.
        own = {name: [of(name, [row]) for row in rows] for name in METRICS}
        assert values(results["macro"], model) == pytest.approx(
            {name: np.mean(own[name]) for name in METRICS}
        )
        assert set(results["deciles"][model]) == set(DECILE_METRICS)
        for metric, spread in results["deciles"][model].items():
            assert [spread[key] for key in ("p10", "p25", "p50", "p75", "p90")] == pytest.approx(
                np.percentile(own[metric], [10, 25, 50, 75, 90])
            )
            # Twelve clients: the two lowest.
            assert spread["worst_decile"] == pytest.approx(np.mean(sorted(own[metric])[:2]))
            assert spread["sd"] == pytest.approx(np.std(own[metric], ddof=1))


def test_every_pair_is_the_difference_of_its_models() -> None:
    results = evaluation().results()
    pairs = [f"{first}-{second}" for first, second in combinations(MODELS, 2)]
    for part in (results, results["macro"], results["seen"], results["unseen"]):
        assert list(part["paired"]) == pairs
        for pair in pairs:
            first, second = (values(part, name) for name in pair.split("-"))
            for metric, found in part["paired"][pair].items():
                assert found["difference"] == pytest.approx(first[metric] - second[metric])
                assert found["low"] <= found["difference"] <= found["high"]


def test_lists_are_measured_against_the_likes_that_a_client_shows() -> None:
    likes = np.arange(90, dtype=float)
    found = evaluation(likes=likes)
    results = json.loads(json.dumps(found.results(), allow_nan=False))["beyond_accuracy"]
    assert list(results) == list(MODELS)
    for model in MODELS:
        lists = [client.top for client in found.ranked[model]]
        assert results[model]["coverage"] == len({item for top in lists for item in top}) / 90
        # The id of an item is its number of likes; what is disliked is no part of a profile.
        filled = [index for index, top in enumerate(lists) if top]
        of_lists = np.mean([np.mean([int(item) for item in lists[index]]) for index in filled])
        of_profiles = np.mean(
            [
                np.mean(
                    [int(f.tail) for f in found.queries[i].graph.facts if f.relation == "liked"]
                )
                for i in filled
            ]
        )
        assert results[model]["popularity_lift"] == pytest.approx(
            (of_lists - of_profiles) / of_profiles
        )
        assert 0 < results[model]["diversity"] < 1
    # One of base's twelve lists is empty and has 0 in the mean; the lists are alike otherwise.
    assert [bool(client.top) for client in found.ranked["base"]].count(False) == 1
    assert results["base"]["novelty"] < min(results[name]["novelty"] for name in MODELS[::2])


def test_without_training_likes_what_needs_them_is_none() -> None:
    found = evaluation().results()["beyond_accuracy"]["tuned"]
    assert [measure for measure, value in found.items() if value is None] == [
        "tail_coverage",
        "tail_share",
        "novelty",
        "popularity_lift",
    ]


def test_a_client_with_nothing_to_rank_against_leaves_adjusted_mrr_to_the_others() -> None:
    everything = asked("all", IDS[:88], IDS[88:], True)
    other = asked("other", IDS[:80], IDS[80:81], True)
    alone = ClientRanks(Ranks(np.array([1, 1]), np.array([1, 1])), tuple(IDS[88:]), False)
    second = ClientRanks(Ranks(np.array([2]), np.array([2])), tuple(IDS[80:]), False)

    def adjusted(*clients: tuple[ClientQueries, int, ClientRanks]) -> tuple[float, float]:
        queries, candidates, ranks = zip(*clients, strict=True)
        found = EvaluationResults(
            queries, candidates, {"m": ranks}, CATALOGUE, None, 200, 0
        ).results()
        json.dumps(found, allow_nan=False)
        return tuple(
            part["models"]["m"]["adjusted_mrr"]["value"] for part in (found, found["macro"])
        )

    chance = float(chance_reciprocal_rank(np.array([10]))[0])
    own = (1 / 2 - chance) / (1 - chance)
    # Micro: nothing to add. Macro: no better than chance, among two clients.
    assert adjusted((everything, 2, alone), (other, 10, second)) == pytest.approx((own, own / 2))
    assert adjusted((everything, 2, alone)) == (0, 0)


def test_one_client_has_neither_interval_nor_deviation() -> None:
    results = evaluation(1, likes=np.ones(90)).results()
    assert results["deciles"]["tuned"]["mrr"]["sd"] is None
    assert results["models"]["tuned"]["adjusted_mrr"]["low"] is None
    assert results["seen"] == {"queries": 0, "clients": 0, "models": {}, "paired": {}}
