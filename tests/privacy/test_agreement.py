"""The accountants against an independent one, dp-accounting's PLD, in an environment of its own."""

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from pkgllm.privacy.accounting import epsilon, fact_epsilon
from pkgllm.privacy.mechanisms import Mechanism, fact_mechanism

SCRIPTS = Path(__file__).parents[2] / "scripts"

Reference = Callable[[Sequence[dict[str, Any]]], list[float]]

# Noise, sampling, steps, delta; epsilon from 0.1 to 15.
FEW = [
    (1.67, 0.1, 100, 1e-5),
    (3.32, 0.5, 20, 1e-5),
    (4.0, 1.0, 10, 1e-5),
    (0.8, 0.05, 40, 1e-4),
    (6.0, 0.02, 200, 1e-3),
]


@pytest.fixture(scope="module")
def reference() -> Reference:
    """Price settings; the environment is made where there is none."""
    made = subprocess.run(
        [SCRIPTS / "reference_environment"], check=True, stdout=subprocess.PIPE, text=True
    )

    def price(settings: Sequence[dict[str, Any]]) -> list[float]:
        done = subprocess.run(
            [made.stdout.strip(), SCRIPTS / "reference_epsilon.py"],
            input=json.dumps(list(settings)),
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        )
        found: list[float] = json.loads(done.stdout)
        return found

    return price


def setting(
    noise: float, probability: float, steps: int, delta: float, max_groups: int = 1
) -> dict[str, Any]:
    return {
        "noise_multiplier": noise,
        "sampling_probability": probability,
        "steps": steps,
        "delta": delta,
        "max_groups": max_groups,
    }


@pytest.mark.slow
def test_prv_is_within_two_hundredths_and_rdp_is_above(reference: Reference) -> None:
    theirs = reference([setting(*numbers) for numbers in FEW])
    for (noise, probability, steps, delta), exact in zip(FEW, theirs, strict=True):
        one = Mechanism(noise, probability, steps)
        assert epsilon([one], delta=delta) == pytest.approx(exact, abs=0.02)
        assert epsilon([one], delta=delta, accountant="rdp") > exact


@pytest.mark.slow
def test_they_agree_on_random_settings() -> None:
    done = subprocess.run(
        [sys.executable, SCRIPTS / "check_accounting.py", "--seed", "1", "--count", "20"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("\n| ") == 20


@pytest.mark.slow
@pytest.mark.parametrize("max_groups", [2])
def test_the_epsilon_fact_mechanism_is_above_the_mixture_of_gaussians(
    reference: Reference, max_groups: int
) -> None:
    exact = reference([setting(*numbers, max_groups) for numbers in FEW[2:4]])
    for (noise, probability, steps, delta), mixture in zip(FEW[2:4], exact, strict=True):
        one = Mechanism(noise, probability, steps)
        moved = epsilon([fact_mechanism(one, max_groups)], delta=delta)
        # Where all are drawn the moved one is the mixture; the grids of both differ.
        assert moved >= mixture - 0.02
        found = fact_epsilon([one], max_groups=max_groups, delta=delta)
        assert mixture - 0.02 <= found <= moved
