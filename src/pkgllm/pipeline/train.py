"""What the commands do: train, go on with a run, build the data."""

import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from peft import PeftModel

from pkgllm.config.load import dump_config
from pkgllm.config.schema import AnyExperiment, EmbeddingExperiment, Experiment
from pkgllm.corpora.catalogue_file import CATALOGUE, write_catalogue_file
from pkgllm.corpora.clients import graph_file
from pkgllm.corpora.population import Population
from pkgllm.errors import DataError, PkgllmError
from pkgllm.evaluation.scorer import ClientQueries
from pkgllm.files import make_folder, remove_unfinished
from pkgllm.graph.rdf import write_graph
from pkgllm.kge.pykeen_extra import check_pykeen
from pkgllm.lm.adapter import (
    AdapterState,
    load_adapter_state,
    read_adapter_state,
)
from pkgllm.lm.base_model import BaseModel
from pkgllm.pipeline.build import (
    PARTITION,
    audit_queries,
    make_kl_baseline,
    make_queries,
    partition_groups,
    partition_notes,
    populate,
    read_corpus,
)
from pkgllm.pipeline.modes import check_runtime, train_policy
from pkgllm.pipeline.privacy import (
    FIXED_NOISE,
    check_cohort,
    check_run,
    is_deployed,
    noise_source,
    noisy_unit,
)
from pkgllm.pipeline.ranking import (
    language_model_notes,
    language_models,
    make_validation,
    rank,
    ranking_notes,
    run_title,
)
from pkgllm.pipeline.run_record import (
    check_goes_back,
    check_same_base,
    check_same_data,
    open_unfinished,
    run_provenance,
    write_record,
)
from pkgllm.pipeline.trainers import STATES, load_policy
from pkgllm.pipeline.training_run import going_on
from pkgllm.privacy.ledger import Ledger
from pkgllm.privacy.noise import NoiseSource
from pkgllm.privacy.run_privacy import LEDGER
from pkgllm.privacy.statements import read_guarantee
from pkgllm.progress import Progress
from pkgllm.prompts.group_store import GroupStore
from pkgllm.prompts.prompts import PromptWriter
from pkgllm.report.evaluation import Report, read_ranks, write_ranks
from pkgllm.runs.folder import RunFolder
from pkgllm.runs.records import read_object

logger = logging.getLogger(__name__)

GROUPS = "groups.arrow"
"""Every training client's groups, from which a round reads those of its cohort. Private, and gone
when training is done."""

KEEP = 2
"""Checkpoints that stay: the newest, and one before it in case that one is damaged."""


@dataclass(frozen=True, slots=True)
class _Job:
    """What a configuration names, loaded and checked, before anything is trained."""

    config: Experiment
    population: Population
    base: BaseModel
    writer: PromptWriter
    policy: PeftModel
    queries: Sequence[ClientQueries]
    facts_left_out: int
    validation: Callable[[AdapterState], Mapping[str, float]] | None
    """Ranks the validation part with an adapter, where that was asked for."""


def train(
    config: AnyExperiment,
    path: Path,
    progress: Progress,
    *,
    keep: int = KEEP,
    insecure_fixed_noise: bool = False,
) -> Report:
    """Do the whole job of a configuration and leave a run folder.

    The first Ctrl-C or SIGTERM during training lets the round, or the epoch of an embedding, that
    is in flight finish and ends after its checkpoint; :func:`resume` goes on from there, and from
    wherever else the process ends.

    Args:
        config: What to do.
        path: The run folder to make.
        progress: Shows the work.
        keep: Checkpoints that stay, at least 1.
        insecure_fixed_noise: Whether private noise comes from the seed, for tests alone; marks the
            run as not private.

    Raises:
        PkgllmError: If anything that the configuration names cannot be used.
    """
    if isinstance(config, EmbeddingExperiment):
        check_pykeen()
        from pkgllm.pipeline import embedding_run

        return embedding_run.train(config, path, progress, keep=keep)
    if is_deployed(config):
        raise ValueError("mode.runtime must be one of this machine; use train_deployed")
    check_runtime(config.mode)
    run = RunFolder.create(path)
    job = _load(config, run)
    run.write_text("config.yaml", dump_config(config))
    try:
        groups = _build_groups(job, run, progress)
        check_cohort(config.mode, groups)
        check_run(config, {client: groups.num_groups(client) for client in groups})
    except PkgllmError:
        # The folder stays empty, so that the corrected command can use it.
        for name in ("config.yaml", GROUPS, PARTITION):
            (run.path / name).unlink(missing_ok=True)
        raise
    noise = noise_source(config, insecure_fixed_noise=insecure_fixed_noise)
    return _go_on(job, run, groups, progress, keep, noise)


def resume(
    path: Path,
    progress: Progress,
    *,
    expected: AnyExperiment | None = None,
    keep: int = KEEP,
    from_round: int | None = None,
) -> Report:
    """Go on with a run as if it had never stopped.

    On a CPU the adapter, the metrics and the predictions are the same to the byte as those of a run
    that was not stopped. Of a run that is finished the report is returned.

    Args:
        path: The run folder.
        progress: Shows the work.
        expected: The configuration that the caller believes the run to have.
        keep: Checkpoints that stay, at least 1.
        from_round: Goes back to the checkpoint of this round instead of the newest.

    Raises:
        ConfigError: If ``expected`` is not the run's configuration; all differing keys are named.
        DataError: If the data are not those of the run.
        ModelError: If the base model is not that of the run.
        RunError: If the folder holds no run, or all of its checkpoints are damaged.
        PkgllmError: If anything else that the run needs cannot be used.
    """
    run, config = open_unfinished(path, expected)
    if isinstance(config, Experiment) and is_deployed(config):
        raise ValueError("mode.runtime must be one of this machine; use train_deployed")
    if from_round is not None:
        check_goes_back(run, config)
    remove_unfinished(run.path)
    if run.results.exists():
        logger.warning("run folder %s: the run is finished already", path)
        return read_ranks(run, title=run_title(config))
    if isinstance(config, EmbeddingExperiment):
        check_pykeen()
        from pkgllm.pipeline import embedding_run

        return embedding_run.resume(run, config, progress, keep=keep)
    check_runtime(config.mode)
    job = _load(config, run)
    if run.provenance.exists():
        check_same_base(run, job.base)
        check_same_data(run, job.population)
    # What was released with fixed noise stays unprotected, so the run keeps its mark.
    was_fixed = run.provenance.exists() and bool(read_object(run.provenance).get(FIXED_NOISE))
    noise = noise_source(config, insecure_fixed_noise=was_fixed)
    groups = _groups(job, run, progress)
    return _go_on(job, run, groups, progress, keep, noise, from_round=from_round)


def build_data(config: AnyExperiment, output: Path, progress: Progress) -> Population:
    """Write every client's graph as JSON-LD, and the split; return who was written.

    Configuration and catalogue lie beside: with a graph, all that a client needs to train alone.
    """
    written = RunFolder.create(output)
    population = populate(config, read_corpus(config))
    make_folder(written.path / "graphs")
    with progress.track("writing graphs", len(population.splits)) as advance:
        for split in population.splits:
            write_graph(split.graph, graph_file(written.path, split.client))
            advance()
    written.write_json("split.json", population.split_record())
    write_catalogue_file(population.corpus.catalogue, written.path / CATALOGUE)
    written.write_text("config.yaml", dump_config(config))
    return population


def _load(config: Experiment, run: RunFolder) -> _Job:
    population = populate(config, read_corpus(config))
    queries = make_queries(config, population)
    catalogue = population.corpus.catalogue
    base, writer, policy = load_policy(config, catalogue)
    # Every prompt is audited before the first step, so that a leak costs no training.
    facts_left_out = audit_queries(queries, writer, catalogue, config.evaluation.part)
    validation = make_validation(config, run.path, base, policy, writer, population)
    return _Job(config, population, base, writer, policy, queries, facts_left_out, validation)


def _groups(job: _Job, run: RunFolder, progress: Progress) -> GroupStore | None:
    """Return a run's groups, as they were or built again; None once training is done."""
    if run.adapter.exists():
        return None
    try:
        if (run.path / PARTITION).exists():
            return GroupStore.open(run.path / GROUPS)
    except DataError as error:
        logger.warning("%s; its groups are built again", error)
    return _build_groups(job, run, progress)


def _build_groups(job: _Job, run: RunFolder, progress: Progress) -> GroupStore:
    path = run.path / GROUPS
    groups, summary = partition_groups(job.config, job.population, job.writer, path, progress)
    run.write_json(PARTITION, summary)
    return groups


def _go_on(
    job: _Job,
    run: RunFolder,
    groups: GroupStore | None,
    progress: Progress,
    keep: int,
    noise: NoiseSource,
    *,
    from_round: int | None = None,
) -> Report:
    """Do what is left of a run; ``groups`` is None where that is the ranking alone."""
    if not run.provenance.exists():
        unit = noisy_unit(job.config)
        if unit is not None and not (run.path / LEDGER).exists():
            Ledger.create(run.path / LEDGER, unit=unit.name)
        made_of = run_provenance(job.config, job.population, job.base, job.base.device)
        write_record(run, job.population, {**made_of, FIXED_NOISE: noise.reproducible})
    if groups is None:
        load_adapter_state(job.policy, read_adapter_state(run.adapter))
    else:
        num_groups = {client: groups.num_groups(client) for client in groups}
        baseline = make_kl_baseline(
            job.config, job.policy, job.writer, job.population.corpus.catalogue
        )
        with going_on(
            job.config,
            job.policy,
            job.base,
            groups,
            run,
            progress,
            keep=keep,
            num_groups=num_groups,
            noise=noise,
            kl_baseline=baseline,
            validation=job.validation,
            from_round=from_round,
        ) as training:
            train_policy(training)
    # What only training needs; nobody's examples stay on the disk.
    (run.path / GROUPS).unlink(missing_ok=True)
    shutil.rmtree(run.path / STATES, ignore_errors=True)
    config, population, queries = job.config, job.population, job.queries
    models = language_models(config, run.path, job.base, job.policy, job.writer, population)
    liked = population.liked_in_training()
    return write_ranks(
        rank(config, models, population, queries, liked, progress),
        run,
        title=run_title(config),
        notes=ranking_notes(
            config,
            run.path,
            population,
            queries,
            training=partition_notes(config, run.path),
            models=language_model_notes(config, queries, job.facts_left_out, job.writer),
        ),
        guarantee=read_guarantee(run.path),
    )
