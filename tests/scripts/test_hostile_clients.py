import math
import runpy
from pathlib import Path
from typing import Any

import pytest

from helpers.quadratic_clients import adapter_at, entries
from pkgllm.federation.messages import Instruction, Update

SCRIPT = Path(__file__).parents[2] / "scripts" / "hostile_clients.py"


@pytest.fixture(scope="module")
def script() -> dict[str, Any]:
    return runpy.run_path(str(SCRIPT))


@pytest.mark.parametrize(
    ("attack", "value", "weight"),
    [("none", 3.0, 2.0), ("flip10", -19.0, 2.0), ("scale10", 21.0, 2.0), ("weight1e9", -1.0, 1e9)],
)
def test_an_attack_changes_the_step(
    script: dict[str, Any], attack: str, value: float, weight: float
) -> None:
    asked = Instruction(adapter=adapter_at(1.0), round_num=1, learning_rate=1.0)
    sent = script["spoilt"](Update(adapter=adapter_at(3.0), weight=2.0), asked, attack)
    assert entries(sent.adapter) == {value}
    assert sent.weight == weight


def test_nan_is_nan(script: dict[str, Any]) -> None:
    asked = Instruction(adapter=adapter_at(1.0), round_num=1, learning_rate=1.0)
    sent = script["spoilt"](Update(adapter=adapter_at(3.0)), asked, "nan")
    assert all(map(math.isnan, entries(sent.adapter)))
