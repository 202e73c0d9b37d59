import json
import statistics
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import permutation_test  # type: ignore[import-untyped]  # scipy ships no types

from helpers.answered_runs import random_ranks, read_rows, write_rows, write_run
from pkgllm.errors import ConfigError, PrivacyError, RunError
from pkgllm.evaluation.metrics import METRICS
from pkgllm.evaluation.significance import holm
from pkgllm.pipeline.comparison import compare
from pkgllm.privacy.statements import Guarantee
from pkgllm.report.comparison import check_output, comparison_document, write_comparison
from pkgllm.report.to_markdown import markdown

NOT_PRIVATE = "Privacy: none, no epsilon can be given; nothing but updates leaves the clients."


def values(results: Mapping[str, Any], metric: str) -> dict[str, float]:
    return {model["name"]: model["metrics"][metric]["value"] for model in results["models"]}


def pairs(results: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(pair["first"], pair["second"]) for pair in results["differences"]]


def test_a_case_done_by_hand(tmp_path: Path) -> None:
    run = write_run(
        tmp_path / "run",
        {
            "tuned": {"a": (1, 4), "b": (2,), "c": (5,)},
            "base": {"a": (2, 20), "b": (4,), "c": (50,)},
            "popularity": {"a": (4, 4), "b": (4,), "c": (2.5,)},
        },
    )
    results = compare([run], ["mrr", "hits@10"])
    assert (results["clients"], results["queries"]) == (3, 4)
    assert values(results, "mrr") == pytest.approx(
        {"tuned": 1.95 / 4, "base": 0.82 / 4, "popularity": 1.15 / 4}
    )
    assert values(results, "hits@10") == {"tuned": 1.0, "base": 0.5, "popularity": 1.0}
    assert pairs(results) == [("tuned", "base"), ("tuned", "popularity"), ("base", "popularity")]
    found = [pair["metrics"]["mrr"] for pair in results["differences"]]
    assert [pair["difference"] for pair in found] == pytest.approx([1.13 / 4, 0.8 / 4, -0.33 / 4])
    # Differences by client: .7, .25, .18; then .75, .25, -.2; then .05, 0, -.38. Of the 8 ways to
    # set the signs, 2 reach 1.13; 4 reach .8 (.75 and .25 alike); and .05 and .38 always reach .33.
    assert [pair["p"] for pair in found] == [2 / 8, 4 / 8, 8 / 8]
    assert [pair["p_holm"] for pair in found] == [3 * 2 / 8, 1.0, 1.0]
    assert results["permutations"] == 8


def test_values_and_p_values_equal_those_of_scipy(tmp_path: Path) -> None:
    runs = [
        write_run(tmp_path / name, {"tuned": random_ranks(seed, num_clients=8, skill=skill)})
        for name, seed, skill in (("strong", 1, 4), ("fair", 2, 2), ("weak", 3, 1))
    ]
    results = compare(runs, list(METRICS))
    assert pairs(results) == [
        ("strong: tuned", "fair: tuned"),
        ("strong: tuned", "weak: tuned"),
        ("fair: tuned", "weak: tuned"),
    ]
    rows = [read_rows(run) for run in runs]
    for metric, terms_of in METRICS.items():
        upper, lower = [], []
        for of_run in rows:
            terms = [
                terms_of(
                    np.array(row["models"]["tuned"]["ranks"]),
                    np.full(len(row["held_out"]), 100 - len(row["held_out"]) + 1),
                )
                for row in of_run
            ]
            upper.append(np.array([found.upper.sum() for found in terms]))
            lower.append(np.array([found.lower.sum() for found in terms]))
        expected = [above.sum() / below.sum() for above, below in zip(upper, lower, strict=True)]
        assert list(values(results, metric).values()) == pytest.approx(expected)
        found = [pair["metrics"][metric] for pair in results["differences"]]
        p_values = []
        for (first, second), pair in zip(((0, 1), (0, 2), (1, 2)), found, strict=True):
            assert pair["difference"] == pytest.approx(expected[first] - expected[second])
            assert pair["low"] <= pair["difference"] <= pair["high"]
            # What a value is divided by is the same for both models.
            swapped = permutation_test(
                (upper[first], upper[second]),
                lambda one, other: float(one.sum() - other.sum()),
                permutation_type="samples",
                vectorized=False,
            )
            p_values.append(float(swapped.pvalue))
        assert [pair["p"] for pair in found] == pytest.approx(p_values)
        assert [pair["p_holm"] for pair in found] == pytest.approx(
            holm(np.array(p_values)).tolist()
        )


def test_tuned_models_meet_each_other_and_their_own_baselines(tmp_path: Path) -> None:
    base = random_ranks(0, num_clients=6, skill=1)
    runs = [
        write_run(
            tmp_path / name,
            {
                "tuned": random_ranks(seed, num_clients=6, skill=3),
                "base": base,
                "popularity": random_ranks(10 + seed, num_clients=6, skill=2),
            },
        )
        for seed, name in enumerate(("x", "y"))
    ]
    results = compare(runs)
    # All answered alike: base stands once.
    assert [(model["name"], model["runs"]) for model in results["models"]] == [
        ("x: tuned", ["x"]),
        ("x: popularity", ["x"]),
        ("y: tuned", ["y"]),
        ("y: popularity", ["y"]),
        ("base", ["x", "y"]),
    ]
    assert pairs(results) == [
        ("x: tuned", "x: popularity"),
        ("x: tuned", "y: tuned"),
        ("x: tuned", "base"),
        ("y: tuned", "y: popularity"),
        ("y: tuned", "base"),
    ]
    for metric in results["metrics"]:
        found = [pair["metrics"][metric] for pair in results["differences"]]
        corrected = holm(np.array([pair["p"] for pair in found]))
        assert [pair["p_holm"] for pair in found] == corrected.tolist()


def test_tuned_models_stand_by_run_even_if_they_answer_alike(tmp_path: Path) -> None:
    models = {"tuned": random_ranks(0, num_clients=20, skill=3)}
    results = compare([write_run(tmp_path / name, models) for name in ("x", "y")], ["mrr"])
    assert pairs(results) == [("x: tuned", "y: tuned")]
    (pair,) = results["differences"]
    assert pair["metrics"]["mrr"] == {
        "difference": 0,
        "low": 0,
        "high": 0,
        "p": 1,
        "p_holm": 1,
    }


def test_a_run_without_a_tuned_model_is_about_all_of_its_models(tmp_path: Path) -> None:
    trained = write_run(
        tmp_path / "trained",
        {
            "tuned": random_ranks(0, num_clients=5, skill=3),
            "base": random_ranks(1, num_clients=5, skill=1),
        },
    )
    graphs = write_run(tmp_path / "graphs", {"embedding": random_ranks(2, num_clients=5, skill=1)})
    assert pairs(compare([trained, graphs])) == [
        ("trained: tuned", "trained: base"),
        ("trained: tuned", "graphs: embedding"),
    ]
    alone = compare([graphs])
    assert (alone["differences"], alone["models"][0]["name"]) == ([], "embedding")


def test_the_order_of_clients_in_later_runs_does_not_matter(tmp_path: Path) -> None:
    def run(name: str, seed: int) -> Path:
        return write_run(tmp_path / name, {"tuned": random_ranks(seed, num_clients=12, skill=2)})

    first, second = run("x", 0), run("y", 1)
    before = compare([first, second])
    write_rows(second, read_rows(second)[::-1])
    assert compare([first, second]) == before


def test_a_setting_has_its_mean_and_sd_over_seeds(tmp_path: Path) -> None:
    base = random_ranks(0, num_clients=9, skill=1)
    runs = [
        write_run(
            tmp_path / f"kto{seed}",
            {
                "tuned": random_ranks(100 + seed, num_clients=9, skill=3),
                "base": base,
                "popularity": random_ranks(200 + seed, num_clients=9, skill=2),
            },
            seed=seed,
        )
        for seed in (4, 5, 6)
    ]
    other = write_run(
        tmp_path / "other",
        {"tuned": random_ranks(9, num_clients=9, skill=3), "base": base},
        overrides=["training.learning_rate=0.5"],
    )
    results = compare([runs[0], other, *runs[1:]])
    assert [run["seed"] for run in results["runs"]] == [4, 0, 5, 6]
    (setting,) = results["settings"]
    assert (setting["runs"], setting["seeds"]) == (["kto4", "kto5", "kto6"], [4, 5, 6])
    # The base model is one and the same, so seeds say nothing about it.
    assert list(setting["models"]) == ["tuned", "popularity"]
    for model, metrics in setting["models"].items():
        for metric, found in metrics.items():
            single = [values(results, metric)[f"kto{seed}: {model}"] for seed in (4, 5, 6)]
            assert found["mean"] == pytest.approx(statistics.mean(single))
            assert found["sd"] == pytest.approx(statistics.stdev(single))
    assert results["notes"] == [NOT_PRIVATE]


def test_one_seed_twice_is_no_spread_over_seeds(tmp_path: Path) -> None:
    models = {"tuned": random_ranks(0, num_clients=5, skill=3)}
    results = compare([write_run(tmp_path / name, models) for name in ("x", "y")])
    assert results["settings"] == []
    assert results["notes"] == [
        "x, y: one setting, but not each with a seed of its own, so no mean over seeds is given.",
        NOT_PRIVATE,
    ]


def test_what_runs_promise_stands_beside_what_they_found(tmp_path: Path) -> None:
    models = {"tuned": random_ranks(0, num_clients=5, skill=3)}
    budget = "privacy={name: client, delta: 1e-3, clip_norm: 1, noise_multiplier: 2}"
    with_unit = [
        write_run(tmp_path / name, models, seed=seed, overrides=[budget])
        for name, seed in (("x", 0), ("y", 1), ("lost", 2))
    ]
    for run in with_unit[:2]:
        guarantee = Guarantee("client", 2.991, 1e-3, "prv")
        (run / "results.json").write_text(json.dumps({"privacy": asdict(guarantee)}))
    without = write_run(tmp_path / "z", models, seed=3)
    results = compare([*with_unit, without])
    told = "unit client, add or remove one; accountant prv."
    assert results["notes"][-3:] == [
        f"x, y: Privacy: epsilon 3.00 at delta 0.001; {told}",
        "lost: Privacy: unit client; the epsilon that was spent is not on record.",
        f"z: {NOT_PRIVATE}",
    ]
    (with_unit[0] / "results.json").write_text(json.dumps({"privacy": {"epsilon": 1}}))
    with pytest.raises(PrivacyError, match=r"x/results\.json: must hold what the run guarantees"):
        compare(with_unit)


def test_what_else_differs_between_runs_is_noted(tmp_path: Path) -> None:
    models = {"tuned": random_ranks(0, num_clients=5, skill=3)}
    runs = [
        write_run(tmp_path / "x", models, unseen=["client1", "client2"], digests={"train": "a"}),
        write_run(
            tmp_path / "y",
            models,
            unseen=["client2", "client4"],
            digests={"train": "a", "movies.json": "b"},
            failed=[("tuned", "client3")],
            seed=1,
        ),
    ]
    results = compare(runs)
    assert results["notes"] == [
        "2 of the 5 clients were seen in training by some of the runs and not by others.",
        "The runs did not all read the same: movies.json.",
        NOT_PRIVATE,
    ]
    assert {model["name"]: model["failures"] for model in results["models"]} == {
        "x: tuned": 0,
        "y: tuned": 1,
    }


def test_a_single_client_has_no_interval_and_no_evidence(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", {"tuned": {"a": (1, 2)}, "base": {"a": (50, 60)}})
    results = compare([run], ["hits@10"])
    assert results["models"][0]["metrics"]["hits@10"] == {"value": 1, "low": None, "high": None}
    assert results["differences"][0]["metrics"]["hits@10"] == {
        "difference": 1,
        "low": None,
        "high": None,
        "p": 1,
        "p_holm": 1,
    }


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        (["mmr"], "--metric mmr: must be one of hits@1, .*; did you mean mrr"),
        (["mrr", "hits@1", "mrr"], "--metric mrr: must be given once, got it twice"),
        ([""], "--metric : must be one of"),
    ],
)
def test_metrics_that_are_none(tmp_path: Path, metrics: list[str], message: str) -> None:
    # Before anything is read.
    with pytest.raises(ConfigError, match=message):
        compare([tmp_path / "nowhere"], metrics)


def test_a_folder_whose_name_is_no_text_has_one_that_can_be_printed(tmp_path: Path) -> None:
    folder = tmp_path / "run\udcff"
    write_run(folder, {"tuned": random_ranks(0, num_clients=3, skill=1)})
    results = compare([folder])
    assert results["runs"][0]["name"] == r"run\udcff"
    write_comparison(results, tmp_path / "out.json")
    write_comparison(results, tmp_path / "out.md")


def test_a_comparison_is_written_in_either_form(tmp_path: Path) -> None:
    run = write_run(
        tmp_path / "run",
        {
            "tuned": random_ranks(0, num_clients=4, skill=3),
            "base": random_ranks(1, num_clients=4, skill=1),
        },
    )
    results = compare([run])
    for name in ("out.json", "out.md"):
        check_output(tmp_path / name)
        write_comparison(results, tmp_path / name)
        with pytest.raises(RunError, match=f"{name}: must be a new file, and exists"):
            check_output(tmp_path / name)
    assert json.loads((tmp_path / "out.json").read_text()) == results
    assert (tmp_path / "out.md").read_text() == markdown(comparison_document(results))
    for name in ("out.txt", "out", ".md", "results.MD"):
        with pytest.raises(ConfigError, match=r"must end in \.md or \.json"):
            check_output(tmp_path / name)
