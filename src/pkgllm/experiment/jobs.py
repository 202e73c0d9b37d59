"""What the commands do: train, evaluate, build the data."""

import json
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

from peft import PeftModel

from pkgllm.config.load import dump_config, load_config
from pkgllm.config.overrides import parse_override
from pkgllm.config.schema import Experiment
from pkgllm.corpora.splits import split_digest
from pkgllm.errors import ConfigError, DataError, ModelError, RunError
from pkgllm.experiment.assembly import (
    LIKED,
    Population,
    audit_queries,
    build_groups,
    check_room,
    make_queries,
    make_writer,
    populate,
    read_corpus,
    read_other_corpus,
)
from pkgllm.experiment.client_folder import CATALOGUE, CONFIG, write_catalogue
from pkgllm.experiment.deployment import is_deployed
from pkgllm.experiment.federation_setup import graph_file
from pkgllm.experiment.legacy import (
    ANSWERS,
    LEAKY_SAMPLES,
    leaky_prompts,
    newest_answers,
    read_answers,
    write_legacy,
)
from pkgllm.experiment.listing import ListAsker, write_lists
from pkgllm.experiment.modes import Training, check_cohort, train_policy
from pkgllm.experiment.ranking import Report, Task, rank, write_ranks
from pkgllm.experiment.scorers import Ranked
from pkgllm.experiment.trainers import REFERENCE, check_engine
from pkgllm.graph.rdf import write_graph
from pkgllm.lm.adapter import attach_adapter, load_adapter
from pkgllm.lm.base_model import BaseModel, load_base_model
from pkgllm.progress import Progress
from pkgllm.randomness import torch_seed
from pkgllm.runs import RunFolder, provenance

GROUPS = "groups.arrow"
"""Every training client's groups, from which a round reads those of its cohort. Private, and gone
when training is done."""

Protocol = Literal["exact", "lists", "all", "legacy-leak"]
"""``exact`` ranks the catalogue, ``lists`` lets models write lists, ``all`` does both;
``legacy-leak`` shows what answers in the prompts are worth, and is in no other."""


def train(config: Experiment, path: Path, progress: Progress) -> Report:
    """Do the whole job of a configuration and leave a run folder.

    Args:
        config: What to do.
        path: The run folder to make.
        progress: Is told how far the work is.

    Raises:
        PkgllmError: If anything that the configuration names cannot be used.
    """
    if is_deployed(config):
        raise ValueError("mode.runtime must be one of this machine; use train_deployed")
    run = RunFolder.create(path)
    population = populate(config, read_corpus(config))
    base = _load_base(config)
    writer = make_writer(config.prompt, base)
    queries = make_queries(config, population)
    catalogue = population.corpus.catalogue
    check_room(config.prompt, writer, base, catalogue)
    # Every prompt is audited before the first step, so that a leak costs no training.
    facts_left_out = audit_queries(queries, writer, catalogue, config.evaluation.part)
    policy = attach_adapter(
        base.model,
        lora_rank=config.adapter.lora_rank,
        lora_alpha=config.adapter.lora_alpha,
        target_modules=config.adapter.target_modules,
        seed=torch_seed(config.seed, "adapter"),
        rank_stabilized=config.adapter.rank_stabilized,
        freeze_a=config.adapter.freeze_a,
    )
    check_engine(config, policy)
    groups = build_groups(config, population, writer, run.path / GROUPS, progress)
    try:
        check_cohort(config.mode, groups)
    except ConfigError:
        # The folder stays empty, so that the corrected command can use it.
        groups.path.unlink()
        raise
    liked = population.liked_in_training()
    run.write_text("config.yaml", dump_config(config))
    run.write_json("provenance.json", _provenance(config, population, base))
    run.write_json("split.json", _split(population))
    run.write_json(LIKED, {"clients": liked})
    train_policy(Training(config, policy, base, groups, run, progress))
    for private in (GROUPS, REFERENCE):
        # What only training needs; nobody's examples are left lying about.
        (run.path / private).unlink(missing_ok=True)
    ranked = Ranked(run.path, base, policy, writer, liked)
    task = Task(config, ranked, population, queries, facts_left_out)
    return write_ranks(task, rank(task, progress), run)


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
        progress: Is told how far the work is.
        data: Another folder in ReDial's format, whose clients were all unseen in training.
        output: Folder to make for the results; the next number below ``RUN/evaluations`` when
            absent.
        protocol: What is asked.
        overrides: Values of ``evaluation`` to set over those of the run, each ``KEY=VALUE``.

    Returns:
        What each protocol found, the ranks first.

    Raises:
        RunError: If the folder holds no finished training, or the output exists.
        ConfigError: If an override is wrong or outside ``evaluation``, or a list does not fit into
            the base model.
        DataError: If the data are not those that the run was trained on, and no others are given.
        ModelError: If the base model is not the one that the adapter was trained on.
        PkgllmError: If anything else that the run needs cannot be used.
    """
    run = RunFolder.open(
        path, needed=("config.yaml", "provenance.json", "split.json", LIKED, "adapter")
    )
    _check_evaluation_only(overrides)
    config = load_config(str(run.config), overrides)
    population = _population(config, data)
    if data is None:
        _check_same_split(run, population)
    base = _load_base(config)
    _check_same_base(run, base)
    policy: PeftModel = load_adapter(base.model, run.adapter)
    writer = make_writer(config.prompt, base)
    queries = make_queries(config, population, everybody=data is not None)
    catalogue = population.corpus.catalogue
    check_room(config.prompt, writer, base, catalogue)
    facts_left_out = audit_queries(queries, writer, catalogue, config.evaluation.part)
    ranked = Ranked(run.path, base, policy, writer, _read_liked(run.path / LIKED))
    task = Task(config, ranked, population, queries, facts_left_out)
    asker = None
    if protocol != "exact":
        prompts = (
            leaky_prompts(population, queries, writer, config.evaluation.part)
            if protocol == "legacy-leak"
            else [writer.write(query.graph) for query in queries]
        )
        asker = ListAsker(config, ranked, population, queries, prompts)
    # Last, so that an evaluation that cannot be done leaves no empty folder behind.
    written = RunFolder.create(output if output is not None else _next_evaluation(run))
    written.write_text("config.yaml", dump_config(config))
    written.write_json("provenance.json", _provenance(config, population, base))
    if asker is not None and protocol == "legacy-leak":
        lists = asker.ask(LEAKY_SAMPLES, progress)
        return (write_legacy(config, population, queries, lists, written, leaky=True),)
    evaluation = rank(task, progress)
    reports = [write_ranks(task, evaluation, written)] if protocol != "lists" else []
    if asker is not None:
        reports.append(write_lists(task, asker, evaluation, written, progress))
    return tuple(reports)


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
    digests = _read_json(source.provenance).get("digests")
    if not isinstance(digests, dict) or digests.get("split") != split_digest(population.splits):
        raise DataError(
            f"{answers}: the answers were written for other data; name those people with --data, "
            "as then, or restore the data"
        )
    queries = make_queries(config, population, everybody=data is not None)
    lists = read_answers(answers, queries, k=config.evaluation.lists.k)
    written = RunFolder.create(output if output is not None else _next_evaluation(run))
    written.write_text("config.yaml", dump_config(config))
    digests = {**digests, "answers": sha256(answers.read_bytes()).hexdigest()}
    written.write_json("provenance.json", provenance(seed=config.seed, digests=digests))
    return write_legacy(config, population, queries, lists, written, leaky=False)


def build_data(config: Experiment, output: Path, progress: Progress) -> int:
    """Write every client's graph as JSON-LD, and the split; return the number of clients.

    Configuration and catalogue lie beside: with a graph, all that a client needs to train alone.

    Args:
        config: Names the corpus, who takes part, and what is held out.
        output: Folder to make.
        progress: Is told how far the work is.
    """
    written = RunFolder.create(output)
    population = populate(config, read_corpus(config))
    (written.path / "graphs").mkdir()
    with progress.track("writing graphs", len(population.splits)) as advance:
        for split in population.splits:
            write_graph(split.graph, graph_file(written.path, split.client))
            advance()
    written.write_json("split.json", _split(population))
    write_catalogue(population.corpus.catalogue, written.path / CATALOGUE)
    written.write_text(CONFIG, dump_config(config))
    return len(population.splits)


def _check_evaluation_only(overrides: Sequence[str]) -> None:
    for text in overrides:
        change = parse_override(text)
        if change.path[0] != "evaluation" or len(change.path) == 1:
            raise ConfigError(
                f"{change.place}: only the keys of evaluation can be set once a run is trained, "
                "for example --set evaluation.max_clients=null"
            )


def _population(config: Experiment, data: Path | None) -> Population:
    if data is None:
        return populate(config, read_corpus(config))
    return populate(config, read_other_corpus(config, data), all_unseen=True)


def _load_base(config: Experiment) -> BaseModel:
    choice = config.base_model
    return load_base_model(choice.name, device=choice.device, dtype=choice.dtype)


def _provenance(config: Experiment, population: Population, base: BaseModel) -> dict[str, object]:
    digests = {
        **population.corpus.digests,
        "split": split_digest(population.splits),
        "base_model": base.digest,
    }
    return {**provenance(seed=config.seed, digests=digests), "device": str(base.device)}


def _split(population: Population) -> dict[str, object]:
    return {
        "digest": split_digest(population.splits),
        "left_out": population.left_out.clients,
        "clients": {
            split.client: {
                "seen_in_training": split.seen_in_training,
                "validation": [fact.tail for fact in split.validation],
                "test": [fact.tail for fact in split.test],
            }
            for split in population.splits
        },
    }


def _check_same_split(run: RunFolder, population: Population) -> None:
    trained_on = _read_json(run.split).get("digest")
    if trained_on is None:
        raise DataError(
            f"{run.path}: the run was trained on clients' own machines, so its people are not "
            "known here; name a folder of others with --data"
        )
    if trained_on != split_digest(population.splits):
        raise DataError(
            f"{run.path}: the data have changed since the run was trained, so its held-out facts "
            "may have been trained on; restore the data, or name other people's with --data"
        )


def _check_same_base(run: RunFolder, base: BaseModel) -> None:
    trained_on = _read_json(run.provenance).get("digests", {}).get("base_model")
    if trained_on != base.digest:
        raise ModelError(
            f"{run.adapter}: the adapter was trained on a base model with digest {trained_on}, but "
            f"{base.name} has {base.digest}; put the base model of the run back"
        )


def _read_json(path: Path) -> dict[str, Any]:
    """Read an object that a run has written."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"{path}: cannot be read as JSON: {error}; train the run again") from error
    if not isinstance(found, dict):
        raise RunError(f"{path}: must hold a JSON object; train the run again")
    return found


def _read_liked(path: Path) -> list[list[str]]:
    found = _read_json(path).get("clients")
    if not isinstance(found, list) or not all(isinstance(liked, list) for liked in found):
        raise RunError(f"{path}: must list what each training client likes; train the run again")
    return found


def _next_evaluation(run: RunFolder) -> Path:
    place = run.path / "evaluations"
    numbers = [int(path.name) for path in place.glob("*") if path.name.isdecimal()]
    return place / f"{max(numbers, default=0) + 1:03d}"
