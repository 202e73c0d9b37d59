"""What the commands do with a finished run: ask its models again, or score what they wrote."""

from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Literal

from peft import PeftModel

from pkgllm.config.load import dump_config, load_any_config, load_config
from pkgllm.config.overrides import parse_override
from pkgllm.config.schema import AnyExperiment, EmbeddingExperiment, Experiment, Local
from pkgllm.corpora.population import Population
from pkgllm.corpora.splits import split_digest
from pkgllm.errors import ConfigError, DataError, RunError
from pkgllm.evaluation.lists.asker import ListAsker
from pkgllm.evaluation.lists.legacy import leaky_prompts
from pkgllm.evaluation.lists.results import ANSWERS, Lists, newest_answers, ranked_lists, read_lists
from pkgllm.evaluation.scorer import ClientQueries
from pkgllm.kge.pykeen_extra import check_pykeen
from pkgllm.lm.adapter import load_adapter
from pkgllm.lm.base_model import BaseModel
from pkgllm.pipeline.build import (
    audit_queries,
    check_room,
    make_queries,
    make_writer,
    partition_notes,
    populate,
    read_corpus,
    read_other_folder,
)
from pkgllm.pipeline.ranking import (
    language_model_notes,
    language_models,
    own_adapter,
    rank,
    ranking_notes,
    run_notes,
    run_title,
)
from pkgllm.pipeline.run_record import (
    LIKED,
    check_same_base,
    check_same_configuration,
    check_same_data,
    check_same_split,
    load_base,
    read_liked,
    run_provenance,
)
from pkgllm.privacy.statements import read_guarantee
from pkgllm.progress import Progress
from pkgllm.prompts.prompts import Prompt, PromptWriter
from pkgllm.report.evaluation import (
    Report,
    data_notes,
    leaky_note,
    task_note,
    write_legacy,
    write_lists,
    write_ranks,
)
from pkgllm.runs.folder import RunFolder, provenance
from pkgllm.runs.records import Mode, RunOrigin, read_record

Protocol = Literal["exact", "lists", "all", "legacy-leak"]
"""``exact`` ranks the catalogue, ``lists`` lets models write lists, ``all`` does both;
``legacy-leak`` shows what answers in the prompts are worth, and is in no other."""

LEAKY_SAMPLES: Mapping[Mode, int] = {"greedy": 1, "sampled": 1}
"""What is asked for where the prompts hold the answers."""

_TRAINED = ("config.yaml", "provenance.json", "split.json", LIKED)


def evaluate_run(
    path: Path,
    progress: Progress,
    *,
    data: Path | None = None,
    output: Path | None = None,
    protocol: Protocol = "exact",
    overrides: Sequence[str] = (),
) -> tuple[Report, ...]:
    """Ask a finished run's models again, for its own clients or for those of another folder.

    Args:
        path: The run folder.
        progress: Shows the work.
        data: Another folder in ReDial's format, whose clients were all unseen in training.
        output: Folder to make for the results; the next number below ``RUN/evaluations`` when
            absent.
        protocol: What is asked.
        overrides: Values of ``evaluation`` to set over those of the run, each ``KEY=VALUE``.

    Returns:
        A report of each protocol, that of the ranks first.

    Raises:
        RunError: If the folder holds no finished training, or the output exists.
        ConfigError: If an override is wrong or outside ``evaluation``, or a list does not fit into
            the base model.
        DataError: If the data are not those that the run was trained on, and no others are given.
        ModelError: If the base model is not the one that the adapter was trained on.
        PkgllmError: If anything else that the run needs cannot be used.
    """
    _check_evaluation_only(overrides)
    config = load_any_config(str(RunFolder.open(path).config), overrides)
    if isinstance(config, EmbeddingExperiment):
        return (_evaluate_embedding(path, config, progress, data, output, protocol),)
    run = RunFolder.open(path, needed=(*_TRAINED, "adapter"))
    check_same_configuration(run, config, may_differ=("evaluation.",))
    population = _population(config, data)
    if data is None:
        check_same_split(run, population)
        check_same_data(run, population)
    base = load_base(config)
    check_same_base(run, base)
    policy: PeftModel = load_adapter(base.model, run.adapter)
    choice = config.evaluation
    writer = make_writer(config.prompt, base)
    queries = make_queries(config, population, everybody=data is not None)
    catalogue = population.corpus.catalogue
    check_room(config.prompt, writer, base, catalogue)
    facts_left_out = audit_queries(queries, writer, catalogue, config.evaluation.part)
    models = language_models(config, run.path, base, policy, writer, population)
    asker = None
    if protocol != "exact":
        prompts = (
            leaky_prompts(population.splits, queries, writer, config.evaluation.part)
            if protocol == "legacy-leak"
            else [writer.write(query.graph) for query in queries]
        )
        # Before anything is ranked, so that the policy carries the adapter for clients without one.
        asker = make_asker(config, run.path, base, policy, writer, population, queries, prompts)
    liked = read_liked(run.path)
    # Last, so that an evaluation that cannot be done leaves no empty folder behind.
    written = RunFolder.create(output if output is not None else _next_evaluation(run))
    written.write_text("config.yaml", dump_config(config))
    written.write_json("provenance.json", run_provenance(config, population, base, base.device))
    if asker is not None and protocol == "legacy-leak":
        lists = asker.ask(LEAKY_SAMPLES, progress)
        return (_write_legacy(config, population, queries, lists, written, leaky=True),)
    evaluation = rank(config, models, population, queries, liked, progress)
    title, reports = run_title(config), []
    notes = ranking_notes(
        config,
        run.path,
        population,
        queries,
        training=partition_notes(config, run.path),
        models=language_model_notes(config, queries, facts_left_out, writer),
    )
    if protocol != "lists":
        guarantee = read_guarantee(run.path)
        reports.append(
            write_ranks(evaluation, written, title=title, notes=notes, guarantee=guarantee)
        )
    if asker is not None:
        k = choice.lists.k
        samples: Mapping[Mode, int] = {
            "greedy": 1,
            "constrained": 1,
            "sampled": choice.lists.samples,
        }
        # The best candidates of the models' ranks stand beside what they write.
        lists = {**asker.ask(samples, progress), **ranked_lists(evaluation, k=k)}
        reports.append(
            write_lists(
                lists,
                queries,
                written,
                k=k,
                resamples=choice.bootstrap_resamples,
                seed=config.seed,
                title=title,
                notes=notes,
            )
        )
    return tuple(reports)


def make_asker(
    config: Experiment,
    run: Path,
    base: BaseModel,
    policy: PeftModel,
    writer: PromptWriter,
    population: Population,
    queries: Sequence[ClientQueries],
    prompts: Sequence[Prompt],
) -> ListAsker:
    """Return what asks the models of a run for lists.

    In mode ``local`` a client without an adapter of its own gets the one that the policy carries
    now.

    Raises:
        ConfigError: If the longest answer does not fit behind the longest prompt.
    """
    alone = isinstance(config.mode, Local)
    return ListAsker(
        policy,
        writer,
        population.corpus.catalogue,
        queries,
        prompts,
        config.evaluation.lists,
        max_positions=base.max_positions,
        seed=config.seed,
        with_base=config.evaluation.base_model,
        select=own_adapter(policy, run, population) if alone else None,
    )


def _evaluate_embedding(
    path: Path,
    config: EmbeddingExperiment,
    progress: Progress,
    data: Path | None,
    output: Path | None,
    protocol: Protocol,
) -> Report:
    if protocol != "exact":
        raise ConfigError(
            f"--protocol {protocol}: must be exact, because an embedding ranks the catalogue and "
            "writes nothing"
        )
    check_pykeen()
    from pkgllm.pipeline.embedding_plan import embedding_queries, make_scorer, plan_embedding
    from pkgllm.pipeline.embedding_run import load_trained, rank_embedding
    from pkgllm.runs.journal import EMBEDDING

    run = RunFolder.open(path, needed=(*_TRAINED, EMBEDDING))
    check_same_configuration(run, config, may_differ=("evaluation.",))
    trained_on = _population(config, None)
    check_same_split(run, trained_on)
    check_same_data(run, trained_on)
    population = trained_on if data is None else _population(config, data)
    plan = plan_embedding(config, trained_on)
    trained = load_trained(run, plan)
    queries = embedding_queries(config, population, everybody=data is not None)
    scorer = make_scorer(plan, trained, population)
    liked = read_liked(run.path)
    written = RunFolder.create(output if output is not None else _next_evaluation(run))
    written.write_text("config.yaml", dump_config(config))
    made_of = run_provenance(config, population, None, plan.device)
    written.write_json("provenance.json", made_of)
    return rank_embedding(
        plan, trained, scorer, run.path, written, population, queries, liked, progress
    )


def rescore_answers(
    path: Path,
    *,
    answers: Path | None = None,
    data: Path | None = None,
    output: Path | None = None,
) -> Report:
    """Score the written lists of an earlier evaluation in the published, inflated way.

    No model is loaded. The same answers are scored honestly beside.

    Args:
        path: The run folder.
        answers: The ``lists.jsonl`` to score; of the run's newest evaluation that has one when
            absent.
        data: The folder that was given as ``data`` when the lists were written.
        output: As for :func:`evaluate_run`.

    Raises:
        RunError: If there are no answers, they are damaged or of other clients, or the output
            exists.
        DataError: If the data are not those that the answers were written for.
        PkgllmError: If anything else that is needed cannot be used.
    """
    run = RunFolder.open(path)
    if answers is None:
        answers = newest_answers(run.path)
    elif answers.name != ANSWERS or not answers.is_file():
        raise RunError(
            f"--answers {answers}: must be a file {ANSWERS} that pkgllm evaluate --protocol lists "
            "wrote"
        )
    source = RunFolder.open(answers.parent, needed=("config.yaml", "provenance.json"))
    config = load_config(str(source.config))
    population = _population(config, data)
    digests = read_record(source.provenance, RunOrigin).digests
    if digests.get("split") != split_digest(population.splits):
        raise DataError(
            f"{answers}: the answers were written for other data; name those people with --data, "
            "as then, or restore the data"
        )
    queries = make_queries(config, population, everybody=data is not None)
    lists = read_lists(answers, queries, k=config.evaluation.lists.k)
    written = RunFolder.create(output if output is not None else _next_evaluation(run))
    written.write_text("config.yaml", dump_config(config))
    digests = {**digests, "answers": sha256(answers.read_bytes()).hexdigest()}
    written.write_json("provenance.json", provenance(seed=config.seed, digests=digests))
    return _write_legacy(config, population, queries, lists, written, leaky=False)


def _write_legacy(
    config: Experiment,
    population: Population,
    queries: Sequence[ClientQueries],
    lists: Lists,
    output: RunFolder,
    *,
    leaky: bool,
) -> Report:
    part = config.evaluation.part
    task = leaky_note(part, queries) if leaky else task_note(part, population, queries)
    return write_legacy(
        lists,
        population.corpus.catalogue,
        queries,
        output,
        k=config.evaluation.lists.k,
        resamples=config.evaluation.bootstrap_resamples,
        seed=config.seed,
        title=run_title(config),
        notes=(*data_notes(population), task, *run_notes(config)),
        leaky=leaky,
    )


def _check_evaluation_only(overrides: Sequence[str]) -> None:
    for text in overrides:
        change = parse_override(text)
        if change.path[0] != "evaluation" or len(change.path) == 1:
            raise ConfigError(
                f"{change.place}: only the keys of evaluation can be set once a run is trained, "
                "for example --set evaluation.max_clients=null"
            )


def _population(config: AnyExperiment, data: Path | None) -> Population:
    if data is None:
        return populate(config, read_corpus(config))
    return populate(config, read_other_folder(config, data), all_unseen=True)


def _next_evaluation(run: RunFolder) -> Path:
    place = run.path / "evaluations"
    numbers = [int(path.name) for path in place.glob("*") if path.name.isdecimal()]
    return place / f"{max(numbers, default=0) + 1:03d}"
