"""What the scores of canaries in a trained run reveal, as bounds on epsilon."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from pkgllm.errors import ConfigError
from pkgllm.privacy.canary_scores import (
    Scores,
    auroc,
    clopper_pearson_epsilon,
    true_positive_rate,
)
from pkgllm.privacy.one_run import best_bound, f_dp_epsilon, one_run_epsilon

SIGNIFICANCE = 0.05
FALSE_POSITIVE_RATE = 0.01


@dataclass(frozen=True, slots=True)
class CanaryResult:
    """What scores reveal about canaries that were put in equally often."""

    repeats: int
    num_canaries: int
    num_included: int
    auroc: float
    true_positive_rate: float
    """At a false positive rate of 1 %."""
    one_run_epsilon: float
    """Lower bound at 95 %."""
    f_dp_epsilon: float
    """The f-DP version's; 95 % together with the one before."""
    clopper_pearson_epsilon: float
    """An estimate rather than a bound, since canaries of one run influence each other."""


class PlantedCanary(Protocol):
    """A canary, as far as its score is judged."""

    @property
    def repeats(self) -> int:
        """Groups that it enters if it takes part."""

    @property
    def included(self) -> bool:
        """Whether it took part."""


def canary_results(
    canaries: Sequence[PlantedCanary], scores: Scores, *, delta: float
) -> list[CanaryResult]:
    """Return what scores reveal about canaries, by how often they were put in.

    The bounds on epsilon are those of the unit ``example`` for canaries that enter one group. One
    that enters several groups is that many units. Of the unit ``client`` they hold where no client
    has two canaries, whatever the repeats.
    """
    results = []
    for repeats in sorted({canary.repeats for canary in canaries}):
        of_group = np.array([canary.repeats == repeats for canary in canaries])
        included = np.array([canary.included for canary in canaries])[of_group]
        own = scores[of_group]
        with_canary, without = own[included], own[~included]
        if min(len(with_canary), len(without)) == 0:
            raise ConfigError(
                f"of {len(own)} canaries with {repeats} repeats all coins fell alike; ask for more"
            )
        one_run, f_dp = (
            best_bound(bound, own, included, delta=delta, significance=SIGNIFICANCE / 2)
            for bound in (one_run_epsilon, f_dp_epsilon)
        )
        results.append(
            CanaryResult(
                repeats=repeats,
                num_canaries=len(own),
                num_included=len(with_canary),
                auroc=auroc(with_canary, without),
                true_positive_rate=true_positive_rate(
                    with_canary, without, false_positive_rate=FALSE_POSITIVE_RATE
                ),
                one_run_epsilon=one_run,
                f_dp_epsilon=f_dp,
                clopper_pearson_epsilon=clopper_pearson_epsilon(
                    with_canary, without, delta=delta, significance=SIGNIFICANCE
                ),
            )
        )
    return results
