import json
from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from pkgllm.config.load import load_config
from pkgllm.corpora.catalogue import Catalogue, Item
from pkgllm.errors import ConfigError, ModelError
from pkgllm.evaluation.lists.lists import list_of_items
from pkgllm.evaluation.lists.results import ClientList, Lists, list_results, ranked_lists
from pkgllm.evaluation.protocol import evaluate
from pkgllm.evaluation.results import TOP_K
from pkgllm.evaluation.scorer import ClientQueries
from pkgllm.graph.personal_graph import Fact, Moment, PersonalGraph, Provenance

CATALOGUE = Catalogue([Item(f"{number:02}", f"Film {number}") for number in range(20)])


def query(client: str, visible: Sequence[str], held_out: Sequence[str]) -> ClientQueries:
    said = Provenance("own_answer", "conversation/1")
    facts = (Fact("liked", item, f"Film {int(item)}", Moment(0, 0), said) for item in visible)
    return ClientQueries(client, True, PersonalGraph(client, tuple(facts)), tuple(held_out))


QUERIES = [query("p", ["00"], ["01", "02"]), query("q", ["05"], ["06"])]


def client_list(
    asked: ClientQueries, linked: Sequence[str], num_lines: int, *, finished: bool = True
) -> ClientList:
    found = list_of_items(linked, visible=asked.graph.tails, k=2, num_lines=num_lines)
    return ClientList(asked.client, "said", finished, failed=False, parsed=found)


FIRST, SECOND = QUERIES
LISTS: Lists = {
    ("tuned", "greedy"): [[client_list(FIRST, ["01", "00", "09"], 4), ClientList.failure("q")]],
    ("tuned", "sampled"): [
        [client_list(FIRST, ["01"], 1), client_list(SECOND, ["07", "06"], 2)],
        [client_list(FIRST, ["03", "04"], 2), client_list(SECOND, [], 0, finished=False)],
    ],
}


def test_the_numbers_are_those_of_a_hand_made_case() -> None:
    results = list_results(LISTS, QUERIES, k=2, resamples=200, seed=0)
    assert (results["k"], results["clients"], results["queries"]) == (2, 2, 3)
    greedy = results["models"]["tuned"]["greedy"]
    assert (greedy["samples"], greedy["failures"], greedy["cut_off"]) == (1, 1, 0)
    values = {
        name: found["value"]
        for part in ("rates", "micro", "macro")
        for name, found in greedy[part].items()
    }
    assert values == pytest.approx(
        {
            "answer_rate": 1 / 2,
            "validity_rate": 3 / 4,
            "novelty_rate": 2 / 3,
            "mean_length": 1.0,
            # macro stands last, and has the same names
            "precision@2": 1 / 4,
            "recall@2": 1 / 4,
            "f1@2": 1 / 4,
            "precision_on_nonempty@2": 1 / 2,
        }
    )
    micro = {name: found["value"] for name, found in greedy["micro"].items()}
    assert micro == pytest.approx({"precision@2": 1 / 2, "recall@2": 1 / 3, "f1@2": 2 / 5})
    assert "over_samples" not in greedy


def test_samples_of_a_client_count_together_and_their_spread_stands_apart() -> None:
    results = list_results(LISTS, QUERIES, k=2, resamples=200, seed=0)
    sampled = results["models"]["tuned"]["sampled"]
    assert (sampled["samples"], sampled["failures"], sampled["cut_off"]) == (2, 0, 1)
    # Two of five items in the lists are held out; three are asked for in each of two samples.
    micro = {name: found["value"] for name, found in sampled["micro"].items()}
    assert micro == pytest.approx({"precision@2": 2 / 5, "recall@2": 2 / 6, "f1@2": 4 / 11})
    over = sampled["over_samples"]
    # The first sample finds 2 of its 3 items, the second 0 of 2.
    assert over["micro"]["precision@2"] == pytest.approx(
        {"mean": 1 / 3, "sd": np.std([2 / 3, 0], ddof=1)}
    )
    assert over["rates"]["answer_rate"] == pytest.approx(
        {"mean": 3 / 4, "sd": np.std([1, 1 / 2], ddof=1)}
    )
    assert over["rates"]["mean_length"] == pytest.approx(
        {"mean": 5 / 4, "sd": np.std([3 / 2, 1], ddof=1)}
    )


def test_intervals_are_of_clients_and_samples_do_not_narrow_them() -> None:
    once: Lists = {("tuned", "sampled"): LISTS["tuned", "sampled"][:1]}
    often: Lists = {("tuned", "sampled"): [*LISTS["tuned", "sampled"][:1]] * 7}
    first, second = (
        list_results(lists, QUERIES, k=2, resamples=200, seed=0)["models"]["tuned"]["sampled"]
        for lists in (once, often)
    )
    for part in ("rates", "micro", "macro"):
        for name, found in first[part].items():
            assert second[part][name] == pytest.approx(found)
            assert found["low"] <= found["value"] <= found["high"]
    assert first["micro"]["recall@2"]["low"] < first["micro"]["recall@2"]["high"]
    assert first["over_samples"]["micro"]["recall@2"]["sd"] is None
    assert second["over_samples"]["micro"]["recall@2"]["sd"] == 0


def test_one_client_has_no_interval() -> None:
    alone: Lists = {("base", "greedy"): [[client_list(FIRST, ["01"], 1)]]}
    results = list_results(alone, QUERIES[:1], k=2, resamples=100, seed=0)
    assert results["models"]["base"]["greedy"]["micro"]["recall@2"] == {
        "value": 0.5,
        "low": None,
        "high": None,
    }


class ByNumber:
    name = "by_number"

    def scores(self, queries: Sequence[ClientQueries]) -> NDArray[np.float64]:
        (asked,) = queries
        if asked.client == "q":
            raise ModelError("client 'q': the prompt is too long")
        return -np.arange(len(CATALOGUE), dtype=float)[None]


def test_ranked_lists_are_the_best_candidates_and_a_failure_is_an_empty_list() -> None:
    evaluation = evaluate([ByNumber()], QUERIES, CATALOGUE, resamples=100, seed=0)
    lists = ranked_lists(evaluation, k=3)
    ((first, second),) = lists["by_number", "ranked"]
    # Film 0 is known already.
    assert first.parsed.items == ("01", "02", "03")
    assert (second.failed, second.parsed.items) == (True, ())
    results = list_results(lists, QUERIES, k=3, resamples=100, seed=0)
    ranked = results["models"]["by_number"]["ranked"]
    assert (ranked["failures"], ranked["cut_off"]) == (1, 0)
    assert ranked["micro"]["recall@3"]["value"] == pytest.approx(2 / 3)


def test_k_goes_as_far_as_rankers_keep_items() -> None:
    with_k = [f"evaluation.lists.k={k}" for k in (TOP_K, TOP_K + 1)]
    assert load_config("quickstart.yaml", with_k[:1]).evaluation.lists.k == TOP_K
    with pytest.raises(ConfigError, match="of at most 10, got 11"):
        load_config("quickstart.yaml", with_k[1:])


def test_a_record_holds_the_answer_and_what_became_of_it() -> None:
    record = client_list(FIRST, ["01", "00", "09"], 4).record("tuned", "greedy", 1)
    assert json.loads(json.dumps(record)) == {
        "client": "p",
        "model": "tuned",
        "mode": "greedy",
        "sample": 1,
        "text": "said",
        "finished": True,
        "failed": False,
        "lines": 4,
        "linked": ["01", "00", "09"],
        "items": ["01", "09"],
    }
