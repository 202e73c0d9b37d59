import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pkgllm.config.schema import Experiment

SCRIPT = Path(__file__).parents[2] / "scripts" / "bench_recommend.py"
FILMS = {str(n): f"Film {n} ({1950 + n})" for n in range(40)}


def test_both_are_measured(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    tiny_base_folder: Path,
    make_dialogue: Callable[..., dict[str, Any]],
    write_redial: Callable[..., Path],
) -> None:
    said = [dict.fromkeys(list(FILMS)[n : n + 6], "liked") for n in (0, 7)]
    dialogues = [make_dialogue(n, n, liked) for n, liked in enumerate(said)]
    data = write_redial(tmp_path, dialogues, FILMS)
    spec = importlib.util.spec_from_file_location("bench_recommend", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config = Experiment.model_validate(
        {
            "corpus": {"name": "redial", "folder": str(data)},
            "base_model": {"name": str(tiny_base_folder), "device": "cpu"},
            "adapter": {"lora_rank": 2, "lora_alpha": 4.0},
            "prompt": {"max_tokens": 400},
            "objective": {"name": "kto"},
            "mode": {"name": "federated", "rounds": 1, "cohort_size": 1},
        }
    )
    monkeypatch.setattr(module, "load_config", lambda name: config)
    module.main(["--json", "--repeats", "1", "--top", "4"])
    measured = json.loads(capsys.readouterr().out)
    assert set(measured["seconds"]) == set(measured["cpu_seconds"]) == {"recommend", "why"}
    assert min(measured["cpu_seconds"].values()) > 0
    assert (measured["prompt_facts"], measured["recommendations"]) == (6, 4)
