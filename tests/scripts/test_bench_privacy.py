import importlib
import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from pkgllm.lm.base_model import load_base_model

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The script, on a few short prompts for the smallest model at hand."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
    module: Any = importlib.import_module("bench_privacy")
    small = importlib.import_module("training_bench.workload").Preset(
        partial(load_base_model, "base-tiny", device="cpu"),
        num_clients=2,
        start_std=0.05,
        prompt_tokens=(20, 40),
    )
    monkeypatch.setitem(module.PRESETS, "cpu", small)
    return module


@pytest.mark.slow
def test_it_prints_both_ratios(script: Any, capsys: pytest.CaptureFixture[str]) -> None:
    script.main(["--json", "--rounds", "1"])
    measured = json.loads(capsys.readouterr().out)
    assert set(measured["ratios"]) == {"example_vs_plain", "client_vs_plain"}
    # The server's part of a round comes on top of a plain one.
    assert measured["ratios"]["client_vs_plain"] > 1
    assert measured["ratios"]["example_vs_plain"] > 0
    assert measured["conditions"]["clients"] == 2
    script.main(["--rounds", "1", "--clients", "1"])
    assert "| ratios: example vs plain |" in capsys.readouterr().out


@pytest.mark.parametrize("wrong", ["0", "-1", "two"])
def test_counts_below_one_are_refused(
    script: Any, capsys: pytest.CaptureFixture[str], wrong: str
) -> None:
    with pytest.raises(SystemExit):
        script.main(["--rounds", wrong])
    assert f"must be a whole number of at least 1, got '{wrong}'" in capsys.readouterr().err
