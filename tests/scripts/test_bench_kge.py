import importlib.util
import json
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "bench_kge.py"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """The script with a small data set and few steps."""
    folder = tmp_path / "data" / "wn18rr"
    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)
    for part, count in (("train", 120), ("valid", 12), ("test", 12)):
        rows = generator.integers(0, [15, 2, 15], size=(count, 3))
        lines = (f"e{head}\tr{relation}\te{tail}\n" for head, relation, tail in rows)
        (folder / f"{part}.txt").write_text("".join(lines))
    monkeypatch.setenv("PKGLLM_DATA", str(tmp_path / "data"))
    spec = importlib.util.spec_from_file_location("bench_kge", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "SPEED", replace(module.SPEED, batch_size=32, num_negatives=2))
    monkeypatch.setattr(module, "CURVE", replace(module.CURVE, batch_size=40, num_negatives=2))
    monkeypatch.setattr(module, "CURVE_TRIPLES", 5)
    monkeypatch.setattr(module, "CURVE_EVERY", 1)
    monkeypatch.setattr(module, "TRIAL_EPOCHS", 1)
    return module


@pytest.mark.slow
def test_speeds_and_curves_are_measured_and_curves_go_on(
    script: ModuleType, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    asked = ["--json", "--dim", "4", "--epochs", "2", "--curves", str(tmp_path / "curves")]
    script.main(asked)
    measured = json.loads(capsys.readouterr().out)
    speeds = measured["triples_per_second"]
    assert set(speeds["kbgat"]) == {"transe", "attention", "decoder"}
    assert measured["ratios"]["hake_vs_rotate"] == speeds["hake"] / speeds["rotate"]
    for name in ("hake", "rotate"):
        curve = measured["curves"][name]
        # 120 triples, some of them drawn twice, in steps of 40.
        assert list(curve["mrr_by_steps"]) == ["3", "6"]
        assert set(curve["rates"]) == {"0.005", "0.02", "0.05"}
        # The trial of one epoch is the first of the two.
        best = curve["rates"][str(curve["learning_rate"])]
        assert best == curve["mrr_by_steps"]["3"] == max(curve["rates"].values())
        tried = {path.name for path in (tmp_path / "curves" / name).iterdir()}
        assert tried == set(curve["rates"])
        longest = [
            rate
            for rate in tried
            if "2" in json.loads((tmp_path / "curves" / name / rate / "curve.json").read_text())
        ]
        assert longest == [str(curve["learning_rate"])]
        assert all(0 < mrr <= 1 for mrr in curve["mrr_by_steps"].values())
        assert (
            0 <= curve["test"]["hits_at_1"] <= curve["test"]["mrr"] <= curve["test"]["hits_at_10"]
        )
    script.main(asked)
    assert json.loads(capsys.readouterr().out)["curves"] == measured["curves"]
