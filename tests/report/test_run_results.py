import builtins
import json
import re
from collections.abc import Callable
from typing import Any

import pytest

from helpers.noisy_evaluation import evaluation
from helpers.run_summaries import round_record, summary
from pkgllm.errors import RunError
from pkgllm.report.plots import PLOTS
from pkgllm.report.results import RunResults
from pkgllm.report.run_report import RunSummary


@pytest.fixture(scope="module")
def values() -> dict[str, Any]:
    return {**evaluation().results(), "notes": ["A note."]}


@pytest.fixture
def run(values: dict[str, Any]) -> RunSummary:
    return summary(results=values)


def test_a_frame_has_a_row_for_each_estimate(run: RunSummary, values: dict[str, Any]) -> None:
    frame = RunResults(run).to_frame()
    assert list(frame.columns) == ["clients", "model", "metric", "value", "low", "high"]
    assert len(frame) == 4 * 3 * len(values["models"]["tuned"])
    by_name = frame.set_index(["clients", "model", "metric"])
    for clients, part in (("all", values), ("unseen", values["unseen"])):
        row = by_name.loc[(clients, "base", "mrr")]
        assert dict(row) == part["models"]["base"]["mrr"]


def test_rounds_are_a_frame_that_counts_clients_and_names_none(values: dict[str, Any]) -> None:
    rounds = (round_record(1, failed={"a": "no memory"}), round_record(2, loss=0.5))
    frame = RunResults(summary(rounds=rounds)).rounds_frame()
    assert list(frame["round_num"]) == [1, 2]
    assert list(frame["update_norms.sd"]) == [0.25, 0.125]
    assert list(frame["failed"]) == [1, 0]
    assert list(frame["cohort"]) == [2, 2]
    assert frame["loss"].isna().tolist() == [True, False]


def test_every_form_holds_the_same_numbers(run: RunSummary, values: dict[str, Any]) -> None:
    results = RunResults(run)
    mrr = values["models"]["tuned"]["mrr"]
    assert results.to_markdown().startswith("## first: kto, federated, base-tiny\n")
    assert "- A note.\n" in results.to_markdown()
    (first, *_) = results.to_json()["blocks"]
    cell = first["rows"][0][first["columns"].index("MRR")]
    assert {key: cell[key] for key in ("value", "low", "high")} == mrr
    json.dumps(results.to_json())
    for text in (results.to_markdown(), results.to_latex(), results._repr_html_()):
        assert cell["text"] in text
        assert text.count("In parts") == 0
    assert results.to_latex().count(r"\begin{tabular}") == results.to_markdown().count("| --- |\n")
    tags = re.findall(r"</?(section|table|tr|td|th|ul|li)\b", results._repr_html_())
    assert all(tags.count(tag) % 2 == 0 for tag in set(tags))


@pytest.mark.slow
def test_a_run_that_has_not_ended_has_rounds_and_no_results() -> None:
    results = RunResults(summary())
    for ask in (results.table, results.to_frame, results.to_latex):
        with pytest.raises(RunError, match=r"^first: .* no results, since the run has not ended"):
            ask()
    assert "4 of 4 rounds" in results._repr_html_()
    assert set(results.plots()) < set(PLOTS)


def test_without_pandas_it_is_said_how_to_get_it(
    run: RunSummary, monkeypatch: pytest.MonkeyPatch
) -> None:
    real: Callable[..., Any] = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.startswith("pandas"):
            raise ModuleNotFoundError("No module named 'pandas'")
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(RunError, match=r"install it with pip install 'pkgllm\[notebook\]'$"):
        RunResults(run).to_frame()
