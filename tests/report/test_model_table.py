from typing import Any

import pytest

from helpers.printed import printed
from pkgllm.report.model_table import model_table_document
from pkgllm.report.to_markdown import markdown

METRICS = ("precision@10", "recall@10", "hits@1", "hits@3", "hits@10", "mrr")
BEYOND = ("coverage", "tail_coverage", "tail_share", "novelty", "diversity")


def a_row(name: str, **changes: Any) -> dict[str, Any]:
    return {
        "name": name,
        "metrics": None,
        "reason": "no | memory",
        "seeds": [],
        "failures": 0,
        "beyond": None,
        "published": {},
        "config": "quickstart.yaml",
        "of": None,
        "settings": [],
        "grid": {},
        "tried": {},
        "winner": None,
        "set_when_tuning": [],
        "differs": None,
        **changes,
    }


@pytest.fixture
def results() -> dict[str, Any]:
    measured = {"value": 0.25, "low": 0.125, "high": 0.5, "sd": 0.0625}
    good = a_row(
        "Good",
        metrics=dict.fromkeys(METRICS, measured),
        seeds=[0, 1],
        failures=1,
        beyond=dict.fromkeys(BEYOND, 0.5),
        published={"mrr": 0.75},
        settings=["seed=1"],
        grid={"slow": ("training.learning_rate=1e-5",), "fast": ("training.learning_rate=1e-3",)},
        tried={"slow": 0.25, "fast": 0.125},
        winner="slow",
        set_when_tuning=["mode.rounds=2"],
        differs="ours has no dropout.",
    )
    return {
        "title": "All models",
        "clients": 9,
        "queries": 20,
        "seeds": [0, 1],
        "reference": "Good",
        "published_in": "nowhere",
        "rows": [good, a_row("Failed")],
        "differences": [],
        "notes": ["A note."],
    }


def test_a_row_that_failed_says_why_in_every_layout(results: dict[str, Any]) -> None:
    document = model_table_document(results)
    assert document.title == "All models: 1 of 2 rows"
    assert "no | memory" in printed(document, 120)
    text = markdown(document)
    assert r"| Failed | no \| memory |  |" in text
    value = ".2500 [.1250, .5000] | .0625"
    assert f"| Good | {' | '.join([value] * 6)} |" in text


def test_the_page_holds_settings_published_values_and_what_differs(results: dict[str, Any]) -> None:
    text = markdown(model_table_document(results))
    assert "| Good | - | - | - | - | - | .7500 |" in text
    assert (
        "| Good | quickstart.yaml | seed=1 | slow: .2500; fast: .1250; with mode.rounds=2 | "
        "training.learning_rate=1e-5 |"
    ) in text
    assert "- Good: no score for 1 clients, whose queries all count as misses." in text
    assert text.endswith("- A note.\n- Good: ours has no dropout.\n")
    assert "Published" not in printed(model_table_document(results))
