"""Studies over the tiny corpus, KTO and DPO for two rounds each, and tables of given rows."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from helpers.tiny_corpus import tiny_experiment
from pkgllm.config.load import dump_config
from pkgllm.studies.study_plan import StudyPlan, load_study
from pkgllm.studies.table_plan import TablePlan, load_table

MakePlan = Callable[..., StudyPlan]


@pytest.fixture(scope="session")
def make_plan(
    tmp_path_factory: pytest.TempPathFactory, data: Path, tiny_base_folder: Path
) -> MakePlan:
    """Write a study with some keys changed, each into a folder of its own, and load it."""
    folder = tmp_path_factory.mktemp("studies")
    (folder / "base.yaml").write_text(dump_config(tiny_experiment(data, tiny_base_folder)))

    def make(**changes: Any) -> StudyPlan:
        study = {
            "base": str(folder / "base.yaml"),
            "set": ["mode.rounds=2"],
            "grid": {"objective": {"kto": [], "dpo": ["objective={name: dpo}"]}},
            "seeds": [7],
            **changes,
        }
        path = tmp_path_factory.mktemp("study") / "tiny.yaml"
        path.write_text(yaml.safe_dump(study, sort_keys=False))
        return load_study(str(path))

    return make


def write_table(
    folder: Path, rows: object, tuning: object = None, *, reference: str, **more: object
) -> TablePlan:
    """Write a table, with its tuning beside it, and load it."""
    table = {"title": "T", "reference": reference, "published_in": "nowhere", "rows": rows}
    (folder / "t.yaml").write_text(yaml.safe_dump({**table, **more}, sort_keys=False))
    if tuning is not None:
        (folder / "t.tuning.json").write_text(json.dumps(tuning))
    return load_table(str(folder / "t.yaml"))
