"""Train with made-up facts in the graphs, and measure what the adapter tells about them."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from peft import PeftModel

from pkgllm.config import schema
from pkgllm.config.load import dump_config
from pkgllm.errors import ConfigError
from pkgllm.lm.adapter import without_adapter
from pkgllm.pipeline.build import (
    build_groups,
    check_room,
    make_kl_baseline,
    make_policy,
    make_writer,
    populate,
    read_corpus,
)
from pkgllm.pipeline.modes import check_cohort, train_policy
from pkgllm.pipeline.privacy.plan import check_privacy
from pkgllm.pipeline.privacy.run import LEDGER
from pkgllm.pipeline.run_record import load_base
from pkgllm.pipeline.trainers import check_engine
from pkgllm.pipeline.training_run import Traces, going_on
from pkgllm.privacy.canary_scores import auroc, clopper_pearson_epsilon, true_positive_rate
from pkgllm.privacy.ledger import Ledger
from pkgllm.privacy.noise import secure
from pkgllm.privacy.one_run import best_bound, f_dp_epsilon, one_run_epsilon
from pkgllm.progress import Progress
from pkgllm.prompts.canaries import Canary, canary_group, draw_canaries
from pkgllm.prompts.groups import Group
from pkgllm.runs.folder import RunFolder
from pkgllm.training.log_probabilities import completion_log_probabilities, pack_branches

SIGNIFICANCE = 0.05
FALSE_POSITIVE_RATE = 0.01

_GROUPS = "groups.arrow"
_AT_ONCE = 8


@dataclass(frozen=True, slots=True)
class CanaryResult:
    """What the adapter tells about canaries that were put in equally often."""

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


def train_with_canaries(
    config: schema.Experiment,
    path: Path,
    progress: Progress,
    *,
    count_by_repeats: Mapping[int, int],
    delta: float,
) -> list[CanaryResult]:
    """Train as a configuration says, with canaries in, and measure them on the final adapter.

    Afterwards the run folder holds the adapter, ``canaries.json`` with every canary and its score,
    and ``canary_results.json``. Nothing is ranked: the model has learnt what nobody said.

    Args:
        config: What to train, in a mode that ends with one adapter.
        path: The run folder to make.
        progress: Is told how far the work is.
        count_by_repeats: How many canaries enter 1 group, 5 groups, and so on.
        delta: At which epsilon is stated.

    Raises:
        PkgllmError: If anything that the configuration names cannot be used.
    """
    if config.mode.name == "local":
        raise ConfigError(
            "mode.name local ends with an adapter for each client, and canaries are scored with "
            "one; use federated or centralized"
        )
    run = RunFolder.create(path)
    population = populate(config, read_corpus(config))
    base = load_base(config)
    catalogue = population.corpus.catalogue
    writer = make_writer(config.prompt, base)
    check_room(config.prompt, writer, base, catalogue)
    policy = make_policy(config, base)
    check_engine(config, policy)
    graphs = {split.client: split.train_graph for split in population.in_training}
    canaries = draw_canaries(
        graphs.keys(), count_by_repeats, seed=config.seed, taken_titles=catalogue.names
    )
    run.write_text("config.yaml", dump_config(config))
    groups = build_groups(
        config, population, writer, run.path / _GROUPS, progress, canaries=canaries
    )
    check_cohort(config.mode, groups)
    if config.privacy.name != "none":
        check_privacy(config, {client: groups.num_groups(client) for client in groups})
        Ledger.create(run.path / LEDGER, unit=config.privacy.name)
    num_groups = {client: groups.num_groups(client) for client in groups}
    traces = Traces(run, progress, None, 1, num_groups, secure())
    baseline = make_kl_baseline(config, policy, writer, catalogue)
    with going_on(config, policy, base, groups, traces, kl_baseline=baseline) as training:
        train_policy(training)
    (run.path / _GROUPS).unlink(missing_ok=True)
    asked = [canary_group(canary, graphs[canary.client], writer) for canary in canaries]
    scores = title_gains(policy, asked)
    results = canary_results(canaries, scores, delta=delta)
    run.write_json(
        "canaries.json",
        [
            {**asdict(canary), "score": score}
            for canary, score in zip(canaries, scores.tolist(), strict=True)
        ],
    )
    run.write_json("canary_results.json", {"delta": delta, "canaries": list(map(asdict, results))})
    return results


def title_gains(policy: PeftModel, groups: Sequence[Group]) -> NDArray[np.float64]:
    """Return by how much the adapter raised the log-probability of each group's liked title.

    What the base model makes of a title is taken off, so that a title is not found for being
    easy: a reference attack that needs no second training.

    Args:
        policy: The base model with the final adapter.
        groups: Of canaries, their title first.

    Returns:
        In nats, shape ``(groups,)``.
    """
    device = next(policy.parameters()).device
    found = []
    for start in range(0, len(groups), _AT_ONCE):
        branches = [(group, group.completions[:1]) for group in groups[start : start + _AT_ONCE]]
        packed = pack_branches(branches, device)
        with torch.inference_mode():
            trained = completion_log_probabilities(policy, packed)
            with without_adapter(policy):
                untrained = completion_log_probabilities(policy, packed)
        found.append((trained - untrained).double().cpu())
    return torch.cat(found).numpy()


def canary_results(
    canaries: Sequence[Canary], scores: NDArray[np.float64], *, delta: float
) -> list[CanaryResult]:
    """Return what scores tell about canaries, by how often they were put in.

    The bounds on epsilon are those of the unit ``example`` for canaries that enter one group. One
    that enters several groups is that many units. Of the unit ``client`` they hold where no client
    has two canaries, whatever the repeats.

    Args:
        canaries: All, those that took no part as well.
        scores: Higher where a canary seems to have taken part. Shape ``(canaries,)``.
        delta: At which epsilon is stated.
    """
    results = []
    for repeats in sorted({canary.repeats for canary in canaries}):
        chosen = np.array([canary.repeats == repeats for canary in canaries])
        included = np.array([canary.included for canary in canaries])[chosen]
        own = scores[chosen]
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
