"""Train with made-up facts in the graphs, and measure what the adapter reveals about them."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
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
from pkgllm.pipeline.privacy.setup import check_run, noisy_unit
from pkgllm.pipeline.run_record import load_base
from pkgllm.pipeline.trainers import check_engine
from pkgllm.pipeline.training_run import Traces, going_on
from pkgllm.privacy.canary_results import CanaryResult, canary_results
from pkgllm.privacy.ledger import Ledger
from pkgllm.privacy.noise import secure
from pkgllm.privacy.run_privacy import LEDGER
from pkgllm.progress import Progress
from pkgllm.prompts.canaries import canary_group, draw_canaries
from pkgllm.prompts.groups import Group
from pkgllm.runs.folder import RunFolder
from pkgllm.training.log_probabilities import completion_log_probabilities, pack_branches

_GROUPS = "groups.arrow"
_AT_ONCE = 8


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
    and ``canary_results.json``. Nothing is ranked: the model has learnt facts that nobody stated.

    Args:
        config: What to train, in a mode that ends with one adapter.
        path: The run folder to make.
        progress: Shows groups built and rounds trained.
        count_by_repeats: How many canaries enter 1 group, 5 groups, and so on.
        delta: At which epsilon is stated.

    Raises:
        PkgllmError: If anything that the configuration names cannot be used.
    """
    if isinstance(config.mode, schema.Local):
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
    num_groups = {client: groups.num_groups(client) for client in groups}
    check_run(config, num_groups)
    if unit := noisy_unit(config):
        Ledger.create(run.path / LEDGER, unit=unit.name)
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

    The base model's log-probability is subtracted, so that a title does not score for being easy:
    a reference attack that needs no second training.

    Returns:
        In nats, shape ``(groups,)``.
    """
    device = next(policy.parameters()).device
    gains = []
    for start in range(0, len(groups), _AT_ONCE):
        branches = [(group, group.completions[:1]) for group in groups[start : start + _AT_ONCE]]
        packed = pack_branches(branches, device)
        with torch.inference_mode():
            trained = completion_log_probabilities(policy, packed)
            with without_adapter(policy):
                untrained = completion_log_probabilities(policy, packed)
        gains.append((trained - untrained).double().cpu())
    return torch.cat(gains).numpy()
