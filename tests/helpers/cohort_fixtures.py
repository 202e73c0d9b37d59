"""A policy, an adapter for each unequal client, and the way of a GPU taken on a CPU."""

from pathlib import Path

import pytest
from peft import PeftModel

from helpers.tiny_cohorts import UNEQUAL, own_adapters
from helpers.tiny_groups import a_policy
from pkgllm.lm.adapter import AdapterState
from pkgllm.lm.base_model import load_base_model
from pkgllm.training import cohort, lane_passes


@pytest.fixture(scope="module")
def policy(tiny_base_folder: Path) -> PeftModel:
    return a_policy(load_base_model(str(tiny_base_folder), device="cpu"))


@pytest.fixture(scope="module")
def adapters(policy: PeftModel) -> dict[str, AdapterState]:
    return own_adapters(policy, sorted(UNEQUAL))


@pytest.fixture
def batched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the way of a GPU, which fills lanes up and batches their products, on a CPU."""
    for module in (cohort, lane_passes):
        monkeypatch.setattr(module, "is_batched", lambda decoder: True)
