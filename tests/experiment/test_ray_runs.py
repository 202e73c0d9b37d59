"""The same configuration in this process and on Ray."""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_corpus import tiny_experiment, write_corpus

from pkgllm.errors import ConfigError
from pkgllm.experiment import jobs
from pkgllm.lm.adapter import read_adapter_state
from pkgllm.progress import Silent
from pkgllm.runs import RunFolder


@pytest.mark.slow
# Not imported here: Ray reads its variables when it is.
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs the extra pkgllm[ray]")
def test_ray_and_this_process_train_the_same_adapter(
    tmp_path: Path,
    tiny_base_folder: Path,
    make_dialogue: Callable[..., dict[str, Any]],
    write_redial: Callable[..., Path],
) -> None:
    data = write_corpus(tmp_path / "data", make_dialogue, write_redial)
    for name, runtime in (("local", {}), ("ray", {"cpus": 2})):
        mode = {"name": "federated", "rounds": 2, "cohort_size": 3}
        mode["runtime"] = {"name": name, **runtime}
        jobs.train(tiny_experiment(data, tiny_base_folder, mode=mode), tmp_path / name, Silent())
    local, ray = (read_adapter_state(tmp_path / name / "adapter") for name in ("local", "ray"))
    torch.testing.assert_close(ray, local, atol=1e-5, rtol=0)
    one, other = (RunFolder.open(tmp_path / name).read_metrics() for name in ("local", "ray"))
    assert [record["cohort"] for record in one] == [record["cohort"] for record in other]
    assert [record["failed"] for record in other] == [{}, {}]
    assert [record["bytes_up"] for record in one] == [record["bytes_up"] for record in other]
    names = {path.name for path in (tmp_path / "ray").iterdir()}
    assert names == {path.name for path in (tmp_path / "local").iterdir()}


def test_without_ray_nothing_is_begun(
    tmp_path: Path, tiny_base_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mode = {"name": "federated", "rounds": 2, "cohort_size": 3, "runtime": {"name": "ray"}}
    config = tiny_experiment(tmp_path / "nowhere", tiny_base_folder, mode=mode)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"install pkgllm\[ray\]"):
        jobs.train(config, tmp_path / "run", Silent())
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("device", "gpus", "told"),
    [
        ("cuda", 0, "base_model.device cuda needs mode.runtime.gpus_per_client above 0"),
        ("cuda:1", 0, "base_model.device cuda:1 needs mode.runtime.gpus_per_client above 0"),
        ("auto", 1.5, "mode.runtime.gpus_per_client must be whole where it is above 1"),
    ],
)
def test_what_ray_cannot_give_is_refused(
    tmp_path: Path, tiny_base_folder: Path, device: str, gpus: float, told: str
) -> None:
    runtime = {"name": "ray", "gpus_per_client": gpus}
    mode = {"name": "federated", "rounds": 1, "cohort_size": 1, "runtime": runtime}
    base_model = {"name": str(tiny_base_folder), "device": device}
    with pytest.raises(ValueError, match=told):
        tiny_experiment(tmp_path, tiny_base_folder, mode=mode, base_model=base_model)
