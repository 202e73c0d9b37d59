"""Train with made-up facts in the graphs, and measure what the adapter reveals about them."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from pkgllm.config import schema
from pkgllm.config.load import dump_config
from pkgllm.errors import ConfigError
from pkgllm.pipeline.build import (
    build_groups,
    make_kl_baseline,
    populate,
    read_corpus,
)
from pkgllm.pipeline.modes import train_policy
from pkgllm.pipeline.privacy import check_cohort, check_run, noisy_unit
from pkgllm.pipeline.trainers import load_policy
from pkgllm.pipeline.training_run import going_on
from pkgllm.privacy.canary_results import CanaryResult, canary_results
from pkgllm.privacy.ledger import Ledger
from pkgllm.privacy.noise import secure
from pkgllm.privacy.run_privacy import LEDGER
from pkgllm.progress import Progress
from pkgllm.prompts.canaries import canary_group, draw_canaries
from pkgllm.runs.folder import RunFolder
from pkgllm.training.log_probabilities import title_gains

_GROUPS = "groups.arrow"


def train_with_canaries(
    config: schema.Experiment,
    path: Path,
    progress: Progress,
    *,
    count_by_repeats: Mapping[int, int],
    delta: float,
) -> list[CanaryResult]:
    """Train as a configuration says, with canaries in, and measure them on the final adapter.

    ``count_by_repeats`` says how many canaries enter 1 group, 5 groups, and so on.

    Afterwards the run folder holds the adapter, ``canaries.json`` with every canary and its score,
    and ``canary_results.json``. Nothing is ranked: the model has learnt facts that nobody stated.

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
    catalogue = population.corpus.catalogue
    base, writer, policy = load_policy(config, catalogue)
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
    baseline = make_kl_baseline(config, policy, writer, catalogue)
    with going_on(
        config,
        policy,
        base,
        groups,
        run,
        progress,
        keep=1,
        num_groups=num_groups,
        noise=secure(),
        kl_baseline=baseline,
    ) as training:
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
