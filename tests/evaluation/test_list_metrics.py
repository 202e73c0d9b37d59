from collections.abc import Sequence

import ir_measures
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ir_measures import P, R, SetF, SetP, SetR

from pkgllm.evaluation.lists.lists import list_of_items
from pkgllm.evaluation.lists.metrics import list_rates, macro_list_metrics, micro_list_metrics
from pkgllm.evaluation.statistics import bootstrap_ratios

Clients = list[tuple[list[int], set[int]]]

items = st.integers(0, 11)
clients = st.lists(
    st.tuples(st.lists(items, max_size=12, unique=True), st.sets(items, min_size=1, max_size=6)),
    min_size=1,
    max_size=12,
)


def split(found: Clients) -> tuple[list[list[str]], list[set[str]]]:
    lists = [[str(item) for item in listed] for listed, _ in found]
    return lists, [{str(item) for item in gold} for _, gold in found]


def test_a_case_done_by_hand() -> None:
    # 2 of 4 right; 0 of 1; nothing answered; the right one stands behind the cut.
    lists = [["a", "b", "c", "d"], ["e"], [], ["f", "g", "h", "i", "j"]]
    gold = [{"b", "d", "x"}, {"a"}, {"a", "b"}, {"j"}]
    assert micro_list_metrics(lists, gold, k=4).values() == pytest.approx(
        {"precision@4": 2 / 9, "recall@4": 2 / 7, "f1@4": 4 / 16}
    )
    assert macro_list_metrics(lists, gold, k=4).values() == pytest.approx(
        {
            "precision@4": (2 / 4) / 4,
            "recall@4": (2 / 3) / 4,
            "f1@4": (4 / 7) / 4,
            "precision_on_nonempty@4": (2 / 4) / 3,
        }
    )


def test_only_empty_lists_are_misses_all_over() -> None:
    for metrics in (micro_list_metrics, macro_list_metrics):
        found = metrics([[], []], [{"a"}, {"b", "c"}], k=10)
        assert set(found.values().values()) == {0.0}
    assert micro_list_metrics([[], []], [{"a"}, {"b", "c"}], k=10).counts[:, 1].tolist() == [1, 2]


def test_rates_done_by_hand() -> None:
    lists = [
        # Five lines, four linked, three of those novel, two different.
        list_of_items(["a", "b", "a", "c"], visible={"b"}, k=10, num_lines=5),
        # One line that names nothing.
        list_of_items([], visible={"b"}, k=10, num_lines=1),
        # Silence.
        list_of_items([], visible=(), k=10),
    ]
    assert list_rates(lists).values() == pytest.approx(
        {"answer_rate": 2 / 3, "validity_rate": 4 / 6, "novelty_rate": 3 / 4, "mean_length": 2 / 3}
    )


def test_rates_of_nothing_are_zero() -> None:
    silent = [list_of_items([], visible=(), k=10)] * 3
    assert set(list_rates(silent).values().values()) == {0.0}


def trec_of(found: Clients) -> tuple[dict[str, dict[str, int]], dict[str, dict[str, float]]]:
    judged = {f"q{n}": {str(item): 1 for item in gold} for n, (_, gold) in enumerate(found)}
    run = {
        f"q{n}": {str(item): -float(place) for place, item in enumerate(listed)}
        for n, (listed, _) in enumerate(found)
    }
    return judged, run


def test_whole_lists_equal_the_set_measures_of_ir_measures() -> None:
    generator = np.random.default_rng(0)
    found: Clients = []
    for _ in range(40):
        listed = generator.permutation(30)[: generator.integers(1, 11)].tolist()
        found.append((listed, set(generator.permutation(30)[: generator.integers(1, 8)].tolist())))
    expected = ir_measures.calc_aggregate([SetP, SetR, SetF], *trec_of(found))
    ours = macro_list_metrics(*split(found), k=10).values()
    assert ours["precision@10"] == pytest.approx(expected[SetP])
    assert ours["recall@10"] == pytest.approx(expected[SetR])
    assert ours["f1@10"] == pytest.approx(expected[SetF])
    assert ours["precision_on_nonempty@10"] == ours["precision@10"]


@pytest.mark.parametrize("k", [1, 3, 10])
def test_full_lists_of_a_ranker_equal_precision_and_recall_at_k(k: int) -> None:
    generator = np.random.default_rng(k)
    found: Clients = []
    for _ in range(40):
        gold = set(generator.permutation(20)[: generator.integers(1, 8)].tolist())
        found.append((generator.permutation(20)[:10].tolist(), gold))
    judged, run = trec_of(found)
    expected = ir_measures.calc_aggregate([P @ k, R @ k], judged, run)
    lists, gold_sets = split(found)
    macro = macro_list_metrics(lists, gold_sets, k=k).values()
    assert macro[f"precision@{k}"] == pytest.approx(expected[P @ k])
    assert macro[f"recall@{k}"] == pytest.approx(expected[R @ k])
    # Lists of one length weigh alike.
    assert micro_list_metrics(lists, gold_sets, k=k).values()[f"precision@{k}"] == pytest.approx(
        expected[P @ k]
    )


@given(clients, st.integers(1, 12))
def test_micro_f1_is_the_harmonic_mean_and_everything_is_a_share(found: Clients, k: int) -> None:
    lists, gold = split(found)
    micro = micro_list_metrics(lists, gold, k=k).values()
    precision, recall = micro[f"precision@{k}"], micro[f"recall@{k}"]
    harmonic = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
    assert micro[f"f1@{k}"] == pytest.approx(harmonic)
    macro = macro_list_metrics(lists, gold, k=k).values()
    assert all(0 <= value <= 1 for value in [*micro.values(), *macro.values()])
    assert macro[f"precision_on_nonempty@{k}"] >= macro[f"precision@{k}"]


@given(clients, st.integers(1, 12))
def test_a_client_who_does_not_answer_lowers_recall_but_not_micro_precision(
    found: Clients, k: int
) -> None:
    def both(clients: Clients) -> tuple[dict[str, float], dict[str, float]]:
        lists, gold = split(clients)
        return (
            micro_list_metrics(lists, gold, k=k).values(),
            macro_list_metrics(lists, gold, k=k).values(),
        )

    (micro, macro), (fewer_micro, fewer_macro) = both([*found, ([], {0, 1})]), both(found)
    assert micro[f"precision@{k}"] == fewer_micro[f"precision@{k}"]
    share = len(found) / (len(found) + 1)
    for name in ("precision", "recall", "f1"):
        assert macro[f"{name}@{k}"] == pytest.approx(share * fewer_macro[f"{name}@{k}"])
    if fewer_micro[f"recall@{k}"]:
        assert micro[f"recall@{k}"] < fewer_micro[f"recall@{k}"]


@given(clients, st.integers(1, 11))
def test_recall_rises_with_k(found: Clients, k: int) -> None:
    lists, gold = split(found)
    shorter = micro_list_metrics(lists, gold, k=k).values()[f"recall@{k}"]
    assert shorter <= micro_list_metrics(lists, gold, k=k + 1).values()[f"recall@{k + 1}"]


@pytest.mark.slow
@given(clients)
def test_sums_by_client_give_intervals(found: Clients) -> None:
    lists, gold = split(found)
    for ratios in (
        micro_list_metrics(lists, gold, k=10),
        macro_list_metrics(lists, gold, k=10),
        list_rates([list_of_items(listed, visible={"3"}, k=10) for listed in lists]),
    ):
        bootstrap = bootstrap_ratios(
            ratios.sums, ratios.counts, resamples=20, generator=np.random.default_rng(0)
        )
        assert dict(zip(ratios.names, bootstrap.values.tolist(), strict=True)) == ratios.values()


@pytest.mark.parametrize(
    ("lists", "gold", "k", "message"),
    [
        ([["a"]], [{"a"}], 0, "k must be at least 1, got 0"),
        ([], [], 3, "at least one client, got 0 and 0"),
        ([["a"]], [], 3, "got 1 and 0"),
        ([["a"], ["b"]], [{"a"}, set()], 3, "client 1: at least one item must be held out"),
        ([["a", "b", "a"]], [{"a"}], 2, "client 0: the items of a list must be distinct"),
    ],
)
def test_wrong_arguments_are_refused(
    lists: Sequence[Sequence[str]], gold: Sequence[set[str]], k: int, message: str
) -> None:
    for metrics in (micro_list_metrics, macro_list_metrics):
        with pytest.raises(ValueError, match=message):
            metrics(lists, gold, k=k)


def test_rates_need_a_list() -> None:
    with pytest.raises(ValueError, match="at least one list must be given"):
        list_rates([])
