"""The same configuration in this process and on Ray."""

import importlib.util
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy.stats import chi2  # type: ignore[import-untyped]

from helpers.private_releases import (
    CLIP_NORM,
    LOUD,
    QUIET,
    gradient_norms,
    is_loud,
    num_values,
    one_release,
)
from helpers.tiny_corpus import tiny_experiment
from pkgllm.errors import ConfigError
from pkgllm.lm.adapter import adapter_state, read_adapter_state, update_norm
from pkgllm.pipeline import train as jobs
from pkgllm.pipeline.build import make_policy
from pkgllm.pipeline.run_record import load_base
from pkgllm.progress import Silent
from pkgllm.runs.folder import RunFolder

pytest_plugins = ["helpers.finished_runs"]

pytestmark = pytest.mark.usefixtures("ray_alone")
# Not imported here: Ray reads its variables when it is.
needs_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="needs the extra pkgllm[ray]"
)
LOCAL: dict[str, Any] = {"name": "local"}
TWO_ACTORS: dict[str, Any] = {"name": "ray", "cpus": 2}
on_ray = pytest.param(TWO_ACTORS, id="ray", marks=[pytest.mark.slow, needs_ray])
either_runtime = pytest.mark.parametrize("runtime", [pytest.param(LOCAL, id="local"), on_ray])


@pytest.mark.slow
@needs_ray
def test_ray_and_this_process_train_the_same_adapter(
    data: Path, tmp_path: Path, tiny_base_folder: Path
) -> None:
    # Its baseline is computed by the server in each round and must reach the actors.
    objective = {"name": "kto", "kl_baseline": "public", "nll_weight": 0.5}
    for runtime in (LOCAL, TWO_ACTORS):
        mode = {"name": "federated", "rounds": 2, "cohort_size": 3, "runtime": runtime}
        config = tiny_experiment(data, tiny_base_folder, mode=mode, objective=objective)
        jobs.train(config, tmp_path / runtime["name"], Silent())
    local, ray = (read_adapter_state(tmp_path / name / "adapter") for name in ("local", "ray"))
    torch.testing.assert_close(ray, local, atol=1e-5, rtol=0)
    one, other = (RunFolder.open(tmp_path / name).read_metrics() for name in ("local", "ray"))
    assert [record["cohort"] for record in one] == [record["cohort"] for record in other]
    assert [record["failed"] for record in other] == [{}, {}]
    baselines = [record["kl_baseline"] for record in one]
    assert baselines[0] == 0 < baselines[1]  # type: ignore[operator]
    assert [record["kl_baseline"] for record in other] == pytest.approx(baselines, abs=1e-4)
    assert [record["bytes_up"] for record in one] == [record["bytes_up"] for record in other]
    names = {path.name for path in (tmp_path / "ray").iterdir()}
    assert names == {path.name for path in (tmp_path / "local").iterdir()}


@pytest.mark.slow
@needs_ray
def test_with_fixed_noise_ray_releases_and_charges_what_this_process_does(
    data: Path, tmp_path: Path, tiny_base_folder: Path
) -> None:
    privacy = {"name": "example", "delta": 0.01, "clip_norm": 0.1, "target_epsilon": 6.0}
    for runtime in (LOCAL, TWO_ACTORS):
        config = tiny_experiment(
            data,
            tiny_base_folder,
            mode={"name": "federated", "rounds": 2, "cohort_size": 3, "runtime": runtime},
            objective={"name": "apo_zero"},
            privacy={**privacy, "expected_batch_size": 2},
            training={"local_steps": 2},
        )
        run = tmp_path / runtime["name"]
        report = jobs.train(config, run, Silent(), insecure_fixed_noise=True)
        assert any(note.startswith("Privacy: not private") for note in report.notes)
    local, ray = (read_adapter_state(tmp_path / name / "adapter") for name in ("local", "ray"))
    torch.testing.assert_close(ray, local, atol=1e-5, rtol=0)
    for name in ("privacy_ledger.jsonl", "privacy.json"):
        assert (tmp_path / "ray" / name).read_bytes() == (tmp_path / "local" / name).read_bytes()
    ledger = (tmp_path / "ray" / "privacy_ledger.jsonl").read_text().splitlines()
    assert {json.loads(line)["steps"] for line in ledger} == {2}


@pytest.mark.slow
@either_runtime
def test_the_noise_of_each_update_has_its_standard_deviation_and_no_two_clients_share_it(
    data: Path, tmp_path: Path, tiny_base_folder: Path, runtime: dict[str, Any]
) -> None:
    config = one_release(data, tiny_base_folder, noise_multiplier=LOUD, runtime=runtime)
    run = tmp_path / "run"
    jobs.train(config, run, Silent())
    (record,) = (json.loads(line) for line in (run / "metrics.jsonl").open())
    assert record["failed"] == {}
    size = num_values(run / "adapter")
    cosines = record["update_cosines"]
    for norm in gradient_norms(record):
        assert is_loud(norm, size)
        assert not any(is_loud(norm, size, noise_multiplier=wrong * LOUD) for wrong in (0.9, 1.1))
    # Of two updates with the correlation r the cosine of each to the mean is sqrt((1 + r) / 2).
    correlations = [2 * cosines[end] ** 2 - 1 for end in ("min", "max")]
    assert max(map(abs, correlations)) < 5 / math.sqrt(size)
    assert len((run / "privacy_ledger.jsonl").read_text().splitlines()) == 2


@pytest.mark.slow
def test_no_update_is_longer_than_the_clip_norm_allows(
    data: Path, tmp_path: Path, tiny_base_folder: Path
) -> None:
    """On Ray as well, by the test with fixed noise."""
    config = one_release(data, tiny_base_folder, noise_multiplier=QUIET)
    jobs.train(config, tmp_path / "run", Silent())
    (record,) = (json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").open())
    # Both gradients are longer than the clip norm, so that the bound is met.
    assert gradient_norms(record) == pytest.approx((CLIP_NORM, CLIP_NORM), rel=1e-3)


@pytest.mark.slow
@needs_ray
@pytest.mark.parametrize("mechanism", ["central", "local"])
def test_ray_releases_noise_of_its_standard_deviation_and_no_other(
    data: Path, tmp_path: Path, tiny_base_folder: Path, mechanism: str
) -> None:
    config = tiny_experiment(
        data,
        tiny_base_folder,
        adapter={"lora_rank": 8},
        mode={
            "name": "federated",
            "rounds": 2,
            "cohort_size": 3,
            "min_updates": 2,
            "runtime": TWO_ACTORS,
        },
        privacy={
            "name": "client",
            "mechanism": mechanism,
            "delta": 0.01,
            "clip_norm": 0.1,
            "noise_multiplier": 20.0,
        },
    )
    report = jobs.train(config, tmp_path / "run", Silent())
    metrics = RunFolder.open(tmp_path / "run").read_metrics()
    lengths = [record["update_norm"] for record in metrics]
    # Three shares came, of which two make up the noise.
    std = 20.0 * 0.1 / 3 * (1.0 if mechanism == "central" else 1.5**0.5)
    low, high = chi2.ppf([5e-7, 1 - 5e-7], 8192)
    for factor, fits in ((1.0, True), (0.9, False), (1.1, False)):
        found = [low <= (length / (factor * std)) ** 2 <= high for length in lengths]  # type: ignore[operator]
        assert found == [fits, fits]
    initial = adapter_state(make_policy(config, load_base(config)))
    total = update_norm(initial, read_adapter_state(tmp_path / "run" / "adapter"))
    # Two rounds, and every actor, drew noise of their own.
    assert low <= (total / std) ** 2 / 2 <= high
    (note,) = [note for note in report.notes if note.startswith("Privacy: epsilon")]
    assert ("sums of at least 2 shares" in note) == (mechanism == "local")


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
