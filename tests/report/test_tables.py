import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from rich.console import Console

from pkgllm.corpora.catalogue import Catalogue, Item
from pkgllm.errors import ModelError
from pkgllm.evaluation.protocol import evaluate
from pkgllm.evaluation.results import Evaluation
from pkgllm.evaluation.scorer import ClientQueries
from pkgllm.graph.personal_graph import PersonalGraph
from pkgllm.report.tables import markdown_table, remarks, terminal_tables

CATALOGUE = Catalogue([Item(f"{index:03}", f"Film {index}") for index in range(300)])


class Noisy:
    """Scores near 1 for the items that are liked, blurred by noise."""

    def __init__(self, name: str, noise: float, failing: tuple[str, ...] = ()) -> None:
        self.name, self.noise, self.failing = name, noise, failing

    def scores(self, queries: Sequence[ClientQueries]) -> NDArray[np.float64]:
        (query,) = queries
        if query.client in self.failing:
            raise ModelError(f"client {query.client!r}: the prompt is too long")
        blur = np.random.default_rng([ord(letter) for letter in self.name + query.client])
        found = blur.normal(size=(1, len(CATALOGUE))) * self.noise
        found[0, [CATALOGUE.index_by_id[item] for item in query.held_out]] += 1
        return found


class Constant(Noisy):
    def scores(self, queries: Sequence[ClientQueries]) -> NDArray[np.float64]:
        return np.zeros((1, len(CATALOGUE)))


def evaluation(num_clients: int = 40, failing: tuple[str, ...] = ()) -> Evaluation:
    queries = []
    for index in range(num_clients):
        client = f"client{index}"
        held_out = tuple(f"{(index * 7 + place) % 300:03}" for place in range(1 + index % 5))
        queries.append(ClientQueries(client, index % 4 != 0, PersonalGraph(client, ()), held_out))
    scorers = [Noisy("tuned", 0.4, failing), Noisy("base", 0.6), Constant("popularity", 0)]
    return evaluate(scorers, queries, CATALOGUE, resamples=300, seed=0)


def printed(results: Mapping[str, Any], width: int) -> str:
    console = Console(width=width, file=io.StringIO())
    with console.capture() as captured:
        for table in terminal_tables(results, width=width):
            console.print(table)
    return captured.get()


def interval(found: Mapping[str, float], key: str = "value") -> tuple[str, str]:
    """Write a value and its interval the long way round."""

    def short(number: float, sign: str = "") -> str:
        text = f"{number:{sign}.4f}"
        return text[:-6] + text[-5:] if text[-6:].startswith("0.") else text

    sign = "+" if key == "difference" else ""
    return short(found[key], sign), f"[{short(found['low'])}, {short(found['high'])}]"


@pytest.mark.parametrize("width", [80, 120])
def test_every_number_stands_on_the_terminal_uncut(width: int) -> None:
    results = evaluation().results()
    text = printed(results, width)
    assert max(len(line.rstrip()) for line in text.splitlines()) <= width
    assert "…" not in text
    assert "All clients: 40 clients, 120 queries" in text
    for metrics in results["models"].values():
        for found in metrics.values():
            assert all(piece in text for piece in interval(found))
    for metrics in results["paired"].values():
        for found in metrics.values():
            assert all(piece in text for piece in interval(found, "difference"))


def test_the_terminal_ends_with_the_parts_in_short() -> None:
    results = evaluation().results()
    _, parts = printed(results, 80).split("In parts, without intervals")
    rows = [line.split() for line in parts.splitlines()]
    for name, model, beside in (
        ("seen", "tuned", ["seen"]),
        ("seen", "base", ["30", "clients"]),
        ("seen", "popularity", ["90", "queries"]),
        ("unseen", "tuned", ["unseen"]),
        ("unseen", "base", ["10", "clients"]),
        ("macro", "tuned", ["macro"]),
    ):
        values = [interval(found)[0] for found in results[name]["models"][model].values()]
        assert [*beside, model, *values] in rows


def test_intervals_stand_beside_values_where_there_is_room() -> None:
    results = evaluation().results()
    value, around = interval(results["models"]["tuned"]["hits@10"])
    assert f"{value} {around}" in printed(results, 120)
    assert f"{value} {around}" not in printed(results, 80)


def test_the_markdown_holds_the_same_numbers_under_its_title() -> None:
    results = evaluation().results()
    text = markdown_table(results, title="Ranking", notes=["made for a test"])
    lines = text.splitlines()
    assert lines[0] == "## Ranking"
    tuned = " | ".join(" ".join(interval(found)) for found in results["models"]["tuned"].values())
    assert f"| tuned | {tuned} |" in lines
    gain = results["paired"]["tuned-base"]["mrr"]
    assert " ".join(interval(gain, "difference")) in text
    assert "- made for a test" in lines
    columns = {line.count("|") for line in lines if line.startswith("|")}
    assert columns == {6}


def test_what_went_wrong_is_said_and_nothing_where_nothing_did() -> None:
    failing = evaluation(failing=("client3", "client4")).results()
    assert "tuned: no score for 2 of 40 clients, whose queries all count as misses." in remarks(
        failing
    )
    assert not [line for line in remarks(evaluation().results()) if "no score" in line]
    # A constant scorer: each item ties with the 300 - n others that are left after filtering the
    # other n - 1 held-out ones. Clients have n = 1 to 5, eight clients each, n queries per client:
    # the mean of (300 - n) over queries is 300 - 8 (1 + 4 + 9 + 16 + 25) / 120 = 296.33.
    (tie,) = [line for line in remarks(failing) if "tie" in line]
    assert tie.startswith("popularity: scores tie; an item shares its rank with 296.33 others")
    assert tie in markdown_table(failing, title="Ranking")


def test_one_client_has_no_interval_and_the_remark_says_so() -> None:
    results = evaluation(num_clients=1).results()
    text = printed(results, 80)
    assert "All clients: 1 client, 1 query" in [line.rstrip() for line in text.splitlines()]
    assert "[" not in text
    assert "seen" not in text.replace("unseen", "")
    assert "One client only, so no interval can be given." in remarks(results)


def test_numbers_keep_their_sign_and_lose_a_zero_that_says_nothing() -> None:
    numbers = {"value": 1.0, "low": -0.00001, "high": 0.5}
    differences = {"difference": -0.0123, "low": -1.0, "high": 0.0}
    metrics = ("hits@1", "hits@3", "hits@10", "mrr")
    part = {
        "clients": 2,
        "queries": 2,
        "models": {name: dict.fromkeys(metrics, numbers) for name in ("a", "b")},
        "paired": {"a-b": dict.fromkeys(metrics, differences)},
    }
    empty = {"clients": 0, "queries": 0, "models": {}, "paired": {}}
    results = {**part, "macro": part, "seen": empty, "unseen": empty, "ties": {}, "failures": {}}
    text = markdown_table(results, title="Signs")
    assert "| 1.0000 [.0000, .5000] |" in text
    assert "| -.0123 [-1.0000, .0000] |" in text
