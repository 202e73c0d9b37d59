"""Price mechanisms with dp-accounting's PLD, apart from all of pkgllm; JSON in, JSON out.

Run with the Python that ``scripts/reference_environment`` prints. Reads a list of objects with
``noise_multiplier``, ``sampling_probability``, ``steps``, ``delta`` and, for a fact that enters
several groups, ``max_groups``; writes the list of their epsilons.
"""

import json
import math
import sys
from typing import Any

import dp_accounting
from dp_accounting.pld import PLDAccountant


def epsilon(setting: dict[str, Any]) -> float:
    """Return the epsilon of one setting under add-or-remove-one."""
    groups = setting.get("max_groups", 1)
    probability = setting["sampling_probability"]
    if groups == 1:
        step = dp_accounting.PoissonSampledDpEvent(
            probability, dp_accounting.GaussianDpEvent(setting["noise_multiplier"])
        )
    else:
        step = dp_accounting.dp_event.MixtureOfGaussiansDpEvent(
            setting["noise_multiplier"],
            list(range(groups + 1)),
            [
                math.comb(groups, m) * probability**m * (1 - probability) ** (groups - m)
                for m in range(groups + 1)
            ],
        )
    accountant = PLDAccountant(
        dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE, value_discretization_interval=1e-3
    )
    accountant.compose(dp_accounting.SelfComposedDpEvent(step, setting["steps"]))
    return float(accountant.get_epsilon(setting["delta"]))


if __name__ == "__main__":
    json.dump([epsilon(setting) for setting in json.load(sys.stdin)], sys.stdout)
