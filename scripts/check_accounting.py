"""Compare the accountants with an independent one, dp-accounting's PLD, and print the table.

The settings are drawn at random: how loud the noise is, how many units a step draws, how many steps
there are and what delta is.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pkgllm.privacy.accounting import epsilon
from pkgllm.privacy.mechanisms import Mechanism

SCRIPTS = Path(__file__).parent
TOLERANCE = 0.02
"""By how much ``prv`` may differ."""


def random_settings(count: int, seed: int) -> list[dict[str, Any]]:
    """Draw settings whose epsilon is between nothing and about 20."""
    generator = np.random.default_rng(seed)
    settings: list[dict[str, Any]] = []
    while len(settings) < count:
        setting = {
            "noise_multiplier": float(np.exp(generator.uniform(np.log(0.6), np.log(8)))),
            "sampling_probability": float(np.exp(generator.uniform(np.log(0.01), 0))),
            "steps": int(np.exp(generator.uniform(0, np.log(200)))),
            "delta": float(10 ** generator.uniform(-6, -2)),
        }
        if epsilon([mechanism(setting)], delta=setting["delta"], accountant="rdp") < 20:
            settings.append(setting)
    return settings


def mechanism(setting: dict[str, Any]) -> Mechanism:
    """Return what a setting describes."""
    return Mechanism(setting["noise_multiplier"], setting["sampling_probability"], setting["steps"])


def reference(settings: Sequence[dict[str, Any]]) -> list[float]:
    """Return the epsilons of the independent accountant, in an environment of its own."""
    made = subprocess.run(
        [SCRIPTS / "reference_environment"], check=True, stdout=subprocess.PIPE, text=True
    )
    priced = subprocess.run(
        [made.stdout.strip(), SCRIPTS / "reference_epsilon.py"],
        input=json.dumps(list(settings)),
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    found: list[float] = json.loads(priced.stdout)
    return found


def main() -> int:
    """Print the table; fail where a difference is above the tolerance."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=50, help="settings to draw")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    settings = random_settings(arguments.count, arguments.seed)
    theirs = reference(settings)
    print("| noise | sampling | steps | delta | PLD | prv | rdp |")
    print("|---|---|---|---|---|---|---|")
    worst = 0.0
    for setting, pld in zip(settings, theirs, strict=True):
        one, delta = mechanism(setting), setting["delta"]
        prv = epsilon([one], delta=delta)
        rdp = epsilon([one], delta=delta, accountant="rdp")
        worst = max(worst, abs(prv - pld))
        print(
            f"| {one.noise_multiplier:.3f} | {one.sampling_probability:.4f} | {one.steps} "
            f"| {delta:.2g} | {pld:.4f} | {prv:.4f} | {rdp:.4f} |"
        )
    print(f"\nlargest difference of prv from PLD: {worst:.4f}; allowed {TOLERANCE}")
    return 0 if worst <= TOLERANCE else 1


if __name__ == "__main__":
    sys.exit(main())
