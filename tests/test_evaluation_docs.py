import doctest
import re
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args

import pytest

from pkgllm.baselines import SCORERS
from pkgllm.config.schema import Evaluation
from pkgllm.evaluation.beyond_accuracy import BeyondAccuracy
from pkgllm.evaluation.comparison import PERMUTATIONS
from pkgllm.evaluation.lists.lists import GeneratedList
from pkgllm.evaluation.lists.metrics import list_rates, macro_list_metrics
from pkgllm.evaluation.lists.results import ClientList
from pkgllm.evaluation.metrics import METRICS
from pkgllm.evaluation.ranking.trie_search import TIE_NATS
from pkgllm.evaluation.results import TOP_K
from pkgllm.evaluation.statistics import CONFIDENCE, Spread
from pkgllm.lm.decoder import KNOWN_MODELS
from pkgllm.runs.records import Mode

PAGE = Path(__file__).parents[1] / "docs" / "evaluation.md"
EMPTY = GeneratedList(num_lines=0, linked=(), novel=(), items=())


@pytest.fixture(scope="module")
def page() -> str:
    return PAGE.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def examples(page: str) -> tuple[doctest.TestResults, str, dict[str, Any]]:
    """The page's Python, run as one session: results, what failed, and what is left behind."""
    source = "\n".join(re.findall(r"^```python\n(.*?)^```$", page, re.DOTALL | re.MULTILINE))
    names: dict[str, Any] = {}
    test = doctest.DocTestParser().get_doctest(source, names, PAGE.name, str(PAGE), 0)
    report: list[str] = []
    found = doctest.DocTestRunner().run(test, out=report.append, clear_globs=False)
    return found, "".join(report), test.globs


def test_the_examples_of_the_page_run(
    examples: tuple[doctest.TestResults, str, dict[str, Any]],
) -> None:
    found, report, _ = examples
    assert found.failed == 0, report
    assert found.attempted > 15


def test_the_page_names_everything_that_is_reported(
    page: str, examples: tuple[doctest.TestResults, str, dict[str, Any]]
) -> None:
    _, _, left = examples
    of_lists = macro_list_metrics([[]], [["1"]], k=3).names
    names = [
        *METRICS,
        *(field.name for kind in (BeyondAccuracy, Spread) for field in fields(kind)),
        *list_rates([EMPTY]).names,
        *(name.replace("@3", "@k") for name in of_lists),
        *get_args(Mode),
        *SCORERS,
        *get_args(Evaluation.model_fields["score"].annotation),
        *KNOWN_MODELS,
        *ClientList.failure("p1").record("tuned", "greedy", 1),
        *next(left["found"].predictions()),
    ]
    # A key of the results may have others behind it, as in `ties.<model>`.
    missing = [name for name in names if f"`{name}`" not in page]
    missing += [key for key in left["results"] if not re.search(rf"`{key}[`.]", page)]
    assert missing == []


@pytest.mark.parametrize(
    "said",
    [
        f"Of the {TOP_K} best candidates",
        f"fewer than {TOP_K} titles",
        f"**`TIE_NATS`** is {TIE_NATS:.0e}".replace("e-0", "e-"),
        f"are {CONFIDENCE * 100:.0f} % percentile intervals",
        f"at random {PERMUTATIONS:,} times",
    ],
)
def test_the_numbers_of_the_page_are_those_of_the_code(page: str, said: str) -> None:
    assert said in " ".join(page.split())
