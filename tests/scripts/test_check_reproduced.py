import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from pkgllm.studies.sweep import reproduce_table
from pkgllm.studies.table_plan import load_table

ROOT = Path(__file__).parents[2]
TABLE = "tables/table2-small-world.yaml"
RUN = "FedPKGLLM NoSyn"
UNTRAINED = ["Base model", "Popularity", "Genre popularity", "ItemKNN", "EASE^R"]
"""Rows of that run whose values no training changes."""


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "check_reproduced", ROOT / "scripts" / "check_reproduced.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_rows_that_no_training_changes_are_those_on_the_page(
    script: ModuleType, tmp_path: Path
) -> None:
    shipped = yaml.safe_load((ROOT / "configs" / TABLE).read_text(encoding="utf-8"))
    shipped["rows"] = [row for row in shipped["rows"] if row["name"] in (RUN, *UNTRAINED)]
    shipped["rows"][0]["set"].append("mode.rounds=1")
    (tmp_path / "few.yaml").write_text(yaml.safe_dump(shipped))
    tuned = (ROOT / "configs" / TABLE).with_suffix(".tuning.json").read_text(encoding="utf-8")
    few = {row: values for row, values in json.loads(tuned).items() if row in (RUN, *UNTRAINED)}
    (tmp_path / "few.tuning.json").write_text(json.dumps(few))
    reproduce_table(tmp_path / "few.yaml", range(1), tmp_path / "few")
    results = json.loads((tmp_path / "few" / "results.json").read_text(encoding="utf-8"))
    assert (results["clients"], results["queries"]) == (120, 591)
    assert [row["failures"] for row in results["rows"]] == [0] * 6
    measured = script.measured_models(results)
    assert list(measured) == [RUN, *UNTRAINED]
    page = script.all_models()
    for row in UNTRAINED:
        assert measured[row] == {
            column: pytest.approx(page[row][column], abs=1e-3) for column in script.METRICS
        }


def test_the_page_has_the_rows_of_both_tables(script: ModuleType) -> None:
    names = [row.name for row in load_table(TABLE).table.rows]
    assert list(script.all_models()) == names
    assert all(row.keys() >= script.METRICS.keys() for row in script.all_models().values())
    bubbles = script.on_the_page("Leaving a bubble, small world", "small world: 1")
    assert list(bubbles) == ["none", "prompt", "adapt"]
    assert all(row.keys() >= {"invalid", "out-PIE"} for row in bubbles.values())


def test_what_differs_is_said(script: ModuleType) -> None:
    page = {"a": {"MRR": 0.5, "Hits@10": 0.1}}
    assert list(script.differences(page, {"a": {"MRR": 0.52, "Hits@10": 0.08}})) == []
    assert list(script.differences(page, {"a": {"MRR": 0.54}, "b": {"MRR": 0.1}})) == [
        "a, MRR: 0.5000 on the page, measured 0.5400",
        "b, MRR: not on the page, measured 0.1000",
    ]
    assert list(script.differences(page, {"a": {"MRR": float("nan")}}))
