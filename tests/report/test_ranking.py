from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from helpers.noisy_evaluation import LIKES, evaluation
from helpers.printed import printed
from pkgllm.evaluation.metrics import METRICS
from pkgllm.report.document import Document
from pkgllm.report.ranking import METRIC_HEADINGS, ranking_document
from pkgllm.report.to_markdown import markdown

WIDTHS = (80, 120, 160)


def ranking(results: Mapping[str, Any]) -> Document:
    return ranking_document(results, title="Ranking", notes=["made for a test"])


def short(number: float | None, sign: str = "") -> str:
    """Write a number the long way round."""
    if number is None:
        return "n/a"
    text = f"{number:{sign}.4f}"
    return text[:-6] + text[-5:] if text[-6:].startswith("0.") and len(text) < 8 else text


def interval(measured: Mapping[str, float], key: str = "value") -> tuple[str, str]:
    sign = "+" if key == "difference" else ""
    return short(measured[key], sign), f"[{short(measured['low'])}, {short(measured['high'])}]"


def table_of(text: str, title: str) -> list[str]:
    """The lines of one table below its headings, up to the empty line that ends it."""
    lines = [line.rstrip() for line in text.splitlines()]
    start = lines.index(title)
    rule = next(place for place in range(start, len(lines)) if set(lines[place]) == {"─"})
    end = next((place for place in range(rule, len(lines)) if not lines[place]), len(lines))
    return lines[rule + 1 : end]


@pytest.mark.parametrize("width", WIDTHS)
def test_every_number_stands_on_the_terminal_uncut(width: int) -> None:
    results = evaluation().results()
    text = printed(ranking(results), width)
    assert max(len(line.rstrip()) for line in text.splitlines()) <= width
    assert "…" not in text
    lines = table_of(text, "All clients: 40 clients, 120 queries")
    height = len(lines) // 3
    for place, metrics in enumerate(results["models"].values()):
        block = " ".join(lines[place * height : (place + 1) * height]).split()
        for measured in metrics.values():
            value, around = interval(measured)
            assert value in block
            assert set(around.split()) <= set(block)


@pytest.mark.parametrize("width", WIDTHS)
def test_a_number_stands_above_its_interval_digits_below_digits(width: int) -> None:
    results = evaluation().results()
    lines = table_of(printed(ranking(results), width), "All clients: 40 clients, 120 queries")
    value, around = interval(results["models"]["tuned"]["hits@10"])
    low, high = around.split()
    column = lines[0].index(value)
    if width == 80:
        assert [line[column - 1 :].split()[0] for line in lines[:3]] == [value, low, high]
        assert lines[2][column:].startswith(high)
    else:
        assert lines[1][column - 1 :].startswith(around)


def test_intervals_take_one_line_as_soon_as_all_of_them_fit() -> None:
    results = evaluation().results()
    title = "All clients: 40 clients, 120 queries"
    (_, around) = interval(results["models"]["tuned"]["hits@1"])
    needed = max(len(line) for line in table_of(printed(ranking(results), 200), title))
    for width in (needed, needed - 1):
        lines = table_of(printed(ranking(results), width), title)
        assert max(map(len, lines)) <= width
        assert (around in "".join(lines)) == (width == needed)


@pytest.mark.parametrize("width", WIDTHS)
def test_differences_stand_against_the_first_model_only(width: int) -> None:
    results = evaluation().results()
    text = printed(ranking(results), width)
    lines = table_of(text, "Paired differences, all clients")
    names = [line.split()[0:2] for line in lines if line[:1].strip()]
    assert [pair for pair in names if pair[0] == "-"] == [["-", "base"], ["-", "popularity"]]
    assert [pair[0] for pair in names if pair[0] != "-"] == ["tuned", "tuned"]
    block = " ".join(lines).split()
    for pair in ("tuned-base", "tuned-popularity"):
        for measured in results["paired"][pair].values():
            value, around = interval(measured, "difference")
            assert {value, *around.split()} <= set(block)
    page = markdown(ranking(results))
    assert page.count("| tuned - base |") == page.count("| tuned - popularity |") == 4
    assert "base - popularity" not in page
    # The results keep what the tables leave out.
    assert "base-popularity" in results["paired"]


def test_the_terminal_ends_with_the_parts_in_short() -> None:
    results = evaluation().results()
    _, parts = printed(ranking(results), 80).split("In parts, without intervals")
    rows = [line.split() for line in parts.splitlines()]
    for name, model, beside in (
        ("seen", "tuned", ["seen"]),
        ("seen", "base", ["30", "clients"]),
        ("seen", "popularity", ["90", "queries"]),
        ("unseen", "tuned", ["unseen"]),
        ("unseen", "base", ["10", "clients"]),
        ("macro", "tuned", ["macro"]),
    ):
        values = [interval(measured)[0] for measured in results[name]["models"][model].values()]
        assert [*beside, model, *values] in rows


def list_row(results: Mapping[str, Any], model: str) -> list[str]:
    measures = results["beyond_accuracy"][model]
    return [
        short(value, "+" if measure == "popularity_lift" else "")
        for measure, value in measures.items()
    ]


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("likes", [LIKES, None])
def test_what_lists_are_like_stands_in_both(width: int, likes: NDArray[np.float64] | None) -> None:
    results = evaluation(likes=likes).results()
    text = printed(ranking(results), width)
    lines = table_of(text, "Beyond accuracy: the lists of all clients")
    page = markdown(ranking(results)).splitlines()
    for line, model in zip(lines, results["models"], strict=True):
        row = list_row(results, model)
        assert line.split() == [model, *row]
        assert f"| {model} | {' | '.join(row)} |" in page
        assert row.count("n/a") == (0 if likes is not None else 4)
    assert (
        "| model | catalogue coverage | tail coverage | tail share | novelty (bits) | genre "
        "diversity | exposure Gini | popularity lift |"
    ) in page


def test_the_markdown_holds_the_same_numbers_under_its_title() -> None:
    results = evaluation().results()
    text = markdown(ranking(results))
    lines = text.splitlines()
    assert lines[0] == "## Ranking"
    headings = "| model | Hits@1 | Hits@3 | Hits@10 | Hits@50 | MRR | adj.MRR | nDCG@10 |"
    assert headings in lines
    tuned = " | ".join(
        " ".join(interval(measured)) for measured in results["models"]["tuned"].values()
    )
    assert f"| tuned | {tuned} |" in lines
    gain = results["paired"]["tuned-base"]["mrr"]
    assert " ".join(interval(gain, "difference")) in text
    assert "- made for a test" in lines
    columns = {line.count("|") for line in lines if line.startswith("|")}
    assert columns == {9}


def test_the_markdown_tells_how_clients_differ() -> None:
    results = evaluation().results()
    lines = markdown(ranking(results)).splitlines()
    for metric, heading in (("hits@10", "Hits@10"), ("mrr", "MRR")):
        start = lines.index(f"**Spread over clients of each client's own {heading}**")
        assert lines[start + 2] == (
            "| model | 10 % | 25 % | median | 75 % | 90 % | mean of worst tenth | SD |"
        )
        for place, model in enumerate(results["models"]):
            values = results["deciles"][model][metric].values()
            row = " | ".join(short(value) for value in values)
            assert lines[start + 4 + place] == f"| {model} | {row} |"


def test_every_heading_stands_over_its_own_measure() -> None:
    results = evaluation().results()
    for part in (results, results["macro"], results["seen"], results["unseen"]):
        for model in part["models"].values():
            assert list(model) == list(METRIC_HEADINGS) == list(METRICS)
    places = {measure: place for place, measure in enumerate(results["beyond_accuracy"]["tuned"])}
    for measure, place in places.items():
        results["beyond_accuracy"]["tuned"][measure] = place / 10
    lines = markdown(ranking(results)).splitlines()
    headings = next(line for line in lines if "catalogue coverage" in line).split(" | ")
    row = next(line for line in lines if line.startswith("| tuned | .0000 | .1000")).split(" | ")
    by_heading = dict(zip(headings, row, strict=True))
    assert by_heading["tail share"] == ".2000"
    assert by_heading["exposure Gini"] == ".5000"
    assert by_heading["popularity lift |"] == "+.6000 |"


def test_what_went_wrong_is_said_and_nothing_where_nothing_did() -> None:
    failing = evaluation(failing=("client3", "client4")).results()
    missed = "tuned: no score for 2 of 40 clients, whose queries all count as misses."
    assert missed in ranking(failing).notes
    assert not [line for line in ranking(evaluation().results()).notes if "no score" in line]
    # A constant scorer: of 299 candidates each item ties with the 299 - n others that are left
    # after filtering the other n - 1 held-out ones. Clients have n = 1 to 5, eight clients each, n
    # queries per client: the mean of (299 - n) over queries is
    # 299 - 8 (1 + 4 + 9 + 16 + 25) / 120 = 295.33.
    (tie,) = [line for line in ranking(failing).notes if "tie" in line]
    assert tie.startswith("popularity: scores tie; an item shares its rank with 295.33 others")
    assert tie in markdown(ranking(failing))


def test_one_client_has_no_interval_and_the_remark_says_so() -> None:
    results = evaluation(num_clients=1).results()
    text = printed(ranking(results), 80)
    assert "All clients: 1 client, 1 query" in [line.rstrip() for line in text.splitlines()]
    assert "[" not in text
    assert "seen" not in text.replace("unseen", "")
    assert "One client only, so no interval can be given." in ranking(results).notes


def test_numbers_keep_their_sign_and_lose_a_zero_that_says_nothing() -> None:
    numbers = {"value": 1.0, "low": -0.00001, "high": 0.5}
    differences = {"difference": -0.0123, "low": -1.0, "high": 0.0}
    part = {
        "clients": 2,
        "queries": 2,
        "models": {name: dict.fromkeys(METRIC_HEADINGS, numbers) for name in ("a", "b")},
        "paired": {"a-b": dict.fromkeys(METRIC_HEADINGS, differences)},
    }
    empty = {"clients": 0, "queries": 0, "models": {}, "paired": {}}
    results = {
        **part,
        "macro": part,
        "seen": empty,
        "unseen": empty,
        "deciles": {},
        "beyond_accuracy": {},
        "ties": {},
        "failures": {},
    }
    text = markdown(ranking(results))
    assert "| 1.0000 [.0000, .5000] |" in text
    assert "| -.0123 [-1.0000, .0000] |" in text


def test_many_models_with_long_names_fit_a_narrow_terminal() -> None:
    measured = evaluation()
    results = measured.results()
    names = {"prompt_copy": "tuned", "federated_embeddings": "base", "[bold]": "popularity"}
    for part in (results, results["macro"], results["seen"], results["unseen"]):
        part["models"] = {new: part["models"][old] for new, old in names.items()}
        part["paired"] = {
            f"prompt_copy-{new}": part["paired"][f"tuned-{names[new]}"] for new in list(names)[1:]
        }
    for key in ("beyond_accuracy", "deciles"):
        results[key] = {new: results[key][old] for new, old in names.items()}
    text = printed(ranking(results), 80)
    assert max(len(line.rstrip()) for line in text.splitlines()) <= 80
    assert "…" not in text
    # A name is no markup.
    assert text.count("[bold]") == 6
