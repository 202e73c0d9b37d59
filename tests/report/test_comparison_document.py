from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from helpers.answered_runs import random_ranks, write_run
from helpers.printed import printed
from pkgllm.evaluation.metrics import METRICS
from pkgllm.pipeline.comparison import compare
from pkgllm.report.comparison import comparison_document
from pkgllm.report.ranking import METRIC_HEADINGS
from pkgllm.report.to_markdown import markdown


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two seeds of one setting and one of another, whose base model is the same."""
    place = tmp_path_factory.mktemp("runs")
    return [
        write_run(
            place / name,
            {
                "tuned": random_ranks(seed, num_clients=40, skill=skill),
                "base": random_ranks(50, num_clients=40, skill=1),
            },
            seed=seed,
            overrides=overrides,
            failed=[("tuned", "client7")] if name == "[bold]dpo" else [],
        )
        for name, seed, skill, overrides in (
            ("fedkto-0", 0, 4, []),
            ("fedkto-1", 1, 3, []),
            ("[bold]dpo", 2, 2, ["training.learning_rate=0.5"]),
        )
    ]


def short(number: float, sign: str = "") -> str:
    """Write a number the long way round: four digits, and no 0 before the point."""
    text = f"{number:{sign}.4f}"
    return text[:-6] + text[-5:] if text[-6:].startswith("0.") else text


def numbers(results: Mapping[str, Any]) -> Iterator[list[str]]:
    """Every row's numbers."""
    for model in results["models"]:
        for of in model["metrics"].values():
            yield [short(of["value"]), f"[{short(of['low'])}, {short(of['high'])}]"]
    for pair in results["differences"]:
        for of in pair["metrics"].values():
            yield [
                short(of["difference"], "+"),
                f"[{short(of['low'])}, {short(of['high'])}]",
                short(of["p"]),
                short(of["p_holm"]),
            ]
    for setting in results["settings"]:
        for metrics in setting["models"].values():
            for of in metrics.values():
                yield [short(of["mean"]), short(of["sd"])]


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("metrics", [["hits@10", "mrr"], ["hits@1", "hits@3", "mrr", "ndcg@10"]])
def test_every_number_stands_on_the_terminal_uncut(
    runs: list[Path], width: int, metrics: list[str]
) -> None:
    results = compare(runs, metrics)
    text = printed(comparison_document(results), width)
    assert max(len(line.rstrip()) for line in text.splitlines()) <= width
    assert "…" not in text
    rows = list(numbers(results))
    assert len(rows) == len(metrics) * (4 + 6 + 1)
    assert all(piece in text for row in rows for piece in row)
    assert f"All clients: 40 clients, {results['queries']} queries" in text
    assert f"{METRIC_HEADINGS[metrics[0]]}: 6 paired differences" in text
    # What rich would read as markup is a name.
    for name in ("fedkto-0:", "fedkto-1:", "[bold]dpo:", "- [bold]dpo: tuned", "- base"):
        assert name in text


def test_the_markdown_holds_the_same_numbers_under_its_title(runs: list[Path]) -> None:
    results = compare(runs)
    lines = markdown(comparison_document(results)).splitlines()
    assert lines[0] == "## Comparison of fedkto-0, fedkto-1, [bold]dpo"
    first, *_ = results["models"]
    row = " | ".join(
        f"{short(of['value'])} [{short(of['low'])}, {short(of['high'])}]"
        for of in first["metrics"].values()
    )
    assert f"| fedkto-0: tuned | {row} |" in lines
    for pair in results["differences"]:
        for of in pair["metrics"].values():
            assert (
                f"| {pair['first']} - {pair['second']} | {short(of['difference'], '+')} "
                f"[{short(of['low'])}, {short(of['high'])}] | {short(of['p'])} | "
                f"{short(of['p_holm'])} |"
            ) in lines
    ((_, tuned),) = results["settings"][0]["models"].items()
    row = " | ".join(short(tuned[metric][key]) for metric in tuned for key in ("mean", "sd"))
    assert f"| fedkto-0, fedkto-1: tuned | {row} |" in lines
    assert "| setting | Hits@10 | Hits@10 SD | MRR | MRR SD |" in lines
    notes = [line[2:] for line in lines if line.startswith("- ")]
    assert notes == list(comparison_document(results).notes)


def test_a_single_run_names_its_models_alone(runs: list[Path]) -> None:
    results = compare(runs[:1], ["mrr"])
    text = printed(comparison_document(results), 80)
    assert "fedkto-0" not in text.partition("\n")[2]
    assert "MRR: 1 paired difference\n" in "\n".join(map(str.rstrip, text.splitlines())) + "\n"
    assert "over seeds" not in text
    assert comparison_document(results).title == "Comparison of fedkto-0"


def test_the_notes_say_how_the_numbers_are_computed(runs: list[Path], tmp_path: Path) -> None:
    all_runs = compare(runs)
    interval, p, seeds, failure, *notes = comparison_document(all_runs).notes
    assert interval.startswith("[low, high]: 95 % cluster bootstrap interval by client, 10,000")
    assert "is flipped at random 10,000 times." in p
    assert seeds.startswith("SD over seeds")
    assert failure.startswith("[bold]dpo: tuned: no score for 1 of 40 clients")
    assert notes == all_runs["notes"]
    few = write_run(
        tmp_path / "few",
        {
            "tuned": random_ranks(0, num_clients=6, skill=2),
            "base": random_ranks(1, num_clients=6, skill=1),
        },
    )
    _, p, privacy = comparison_document(compare([few])).notes
    assert "is flipped in each of the 64 ways." in p
    assert privacy.startswith("Privacy: none, no epsilon can be given;")
    one = write_run(tmp_path / "one", {"tuned": {"a": (1,)}})
    assert comparison_document(compare([one])).notes == (
        "One client only, so no interval can be given.",
        privacy,
    )


def test_every_metric_has_a_heading() -> None:
    assert set(METRICS) <= set(METRIC_HEADINGS)
