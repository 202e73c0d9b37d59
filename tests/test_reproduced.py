"""Commands that made tables of docs/results.md, run whole: what they find must stand there."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pkgllm.studies.table_plan import load_table

DOCS = Path(__file__).parents[1] / "docs" / "results.md"
SAME = 0.03
"""Another processor rounds otherwise, and training carries that on; measured below .01."""


def written(section: str, table: str) -> dict[str, dict[str, float]]:
    """The values of a table in the docs, by row and column, without their intervals."""
    text = DOCS.read_text(encoding="utf-8").partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    lines = text.partition(f"**{table}")[2].partition("\n\n")[2].partition("\n\n")[0].splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    headings, _, *rows = cells
    return {
        row[0]: {
            heading: float(number[0])
            for heading, cell in zip(headings[1:], row[1:], strict=True)
            if (number := re.match(r"-?[\d.]+", cell))
        }
        for row in rows
    }


def reproduce(*arguments: str) -> None:
    command = [sys.executable, "-m", "pkgllm", "reproduce", *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_the_table_of_all_models_on_the_small_world(tmp_path: Path) -> None:
    reproduce("table2", "--scale", "small-world", "--seeds", "1", "-o", str(tmp_path))
    results = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    told = written("All models, small world", "Every row")
    names = [row.name for row in load_table("tables/table2-small-world.yaml").table.rows]
    assert [row["name"] for row in results["rows"]] == names == list(told)
    assert (results["clients"], results["queries"]) == (120, 591)
    for row in results["rows"]:
        assert row["failures"] == 0
        found = {"Hits@10": row["metrics"]["hits@10"], "MRR": row["metrics"]["mrr"]}
        for heading, metric in found.items():
            assert metric["value"] == pytest.approx(told[row["name"]][heading], abs=SAME)


@pytest.mark.slow
def test_the_table_of_leaving_a_bubble_on_the_small_world(tmp_path: Path) -> None:
    reproduce("pie", "--scale", "small-world", "-o", str(tmp_path))
    results = json.loads((tmp_path / "pie.json").read_text(encoding="utf-8"))
    told = written("Leaving a bubble, small world", "small world: 1")
    assert list(told) == ["none", "prompt", "adapt"]
    for strategy, measured in told.items():
        for heading, metric in (("invalid", "invalid"), ("out-PIE", "out_pie")):
            found = results["cases"]["small world"]["strategies"][strategy][metric]["value"]
            assert found == pytest.approx(measured[heading], abs=SAME)
