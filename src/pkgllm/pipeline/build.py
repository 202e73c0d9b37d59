"""From sections of the configuration to the objects they describe."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from peft import PeftModel

from pkgllm.config import schema
from pkgllm.corpora.catalogue import Catalogue
from pkgllm.corpora.clients import Corpus
from pkgllm.corpora.population import Population
from pkgllm.corpora.sameness import with_one_entry_each
from pkgllm.errors import ConfigError, DataError
from pkgllm.evaluation.scorer import ClientQueries, candidate_mask
from pkgllm.files import hidden_sibling
from pkgllm.lm.adapter import attach_adapter
from pkgllm.lm.base_model import BaseModel
from pkgllm.progress import Progress
from pkgllm.prompts.audit import audit_prompt
from pkgllm.prompts.canaries import Canary, inserted_groups
from pkgllm.prompts.group_store import GroupStore, GroupWriter
from pkgllm.prompts.groups import GroupBuilder, with_mismatched
from pkgllm.prompts.item_similarity import AdamicAdar
from pkgllm.prompts.partition.partition import partition_note
from pkgllm.prompts.partition.stored import drop_unusable, store_partition, summary_of
from pkgllm.prompts.prompts import PromptWriter
from pkgllm.prompts.public_groups import public_groups
from pkgllm.prompts.settings import PromptSettings
from pkgllm.prompts.synthetic import synthetic_groups
from pkgllm.randomness import stream, torch_seed
from pkgllm.runs.records import PartitionSummary, read_record
from pkgllm.training.local import KlBaseline, no_baseline
from pkgllm.training.public_baseline import PublicBaseline

_ASKED_FOR = ("liked", "disliked", "rule")
"""Sources of completions that may not stand in their prompt."""


PARTITION = "partition.json"
"""What a run's partition left, in numbers of all clients together; no client's id is in it."""


def read_corpus(config: schema.AnyExperiment) -> Corpus:
    """Read the corpus that a configuration names."""
    return _with_same_items(config, config.corpus.read(config.split.restated_facts))


def read_other_folder(config: schema.AnyExperiment, folder: Path) -> Corpus:
    """Read another folder in the format of the corpus that a configuration names."""
    corpus = config.corpus.read_folder(folder, config.split.restated_facts)
    return _with_same_items(config, corpus)


def _with_same_items(config: schema.AnyExperiment, corpus: Corpus) -> Corpus:
    return with_one_entry_each(corpus) if config.corpus.same_items == "one" else corpus


def populate(
    config: schema.AnyExperiment, corpus: Corpus, *, all_unseen: bool = False
) -> Population:
    """Choose who takes part, who is kept out of training, and what is held out."""
    return Population.of(
        corpus, config.clients, config.split, seed=config.seed, all_unseen=all_unseen
    )


def build_groups(
    config: schema.Experiment,
    population: Population,
    writer: PromptWriter,
    path: Path,
    progress: Progress,
    *,
    canaries: Sequence[Canary] = (),
) -> GroupStore:
    """Build and audit the groups of every training client that has any, and store them.

    One client's groups are in memory at a time. Where an error is raised, no file is left.
    Those of the ``canaries`` that are included are put in, to measure what training reveals.

    Raises:
        LeakError: If a prompt holds an item that it asks for or that is held out of its client.
        DataError: If no client has a group.
        RunError: If the file cannot be written.
    """
    catalogue, synthetic = population.corpus.catalogue, config.synthetic
    builder = GroupBuilder(catalogue, writer, config.groups.negatives)
    similarity = AdamicAdar(catalogue, synthetic.relations) if synthetic.rule_facts else None
    with (
        GroupWriter.create(path) as stored,
        progress.track("building groups", len(population.in_training)) as advance,
    ):
        for split in population.in_training:
            groups = builder.build(
                split.train_graph,
                stream(config.seed, "groups", split.client),
                config.groups,
                max_groups_per_fact=config.privacy.fact_bound,
            )
            added = synthetic_groups(
                split.train_graph,
                builder,
                synthetic,
                similarity,
                stream(config.seed, "synthetic", split.client),
                max_context=config.groups.max_context,
            )
            if added:
                groups = with_mismatched((*groups, *added))
            for group in groups:
                asked = {c.item for c in group.completions if c.source in _ASKED_FOR}
                audit_prompt(
                    group.prompt,
                    asked | {fact.tail for fact in split.validation + split.test},
                    catalogue,
                    place="training prompt",
                )
            own = [c for c in canaries if c.included and c.client == split.client]
            groups += inserted_groups(own, split.train_graph, writer)
            if groups:
                stored.add(split.client, groups)
            advance()
        if not stored.num_clients:
            raise DataError(
                "no client has a training group: a group needs groups.min_context earlier facts "
                "and a liked fact to hide; lower groups.min_context or read more dialogues"
            )
    return GroupStore.open(path)


def partition_groups(
    config: schema.Experiment,
    population: Population,
    writer: PromptWriter,
    path: Path,
    progress: Progress,
) -> tuple[GroupStore, dict[str, Any]]:
    """Build and audit everybody's groups, and store what each client trains on.

    Every prompt is audited for the person who wrote it, before anything is cut or moved. One
    client's groups are in memory at a time; ``redistributed`` holds a fixed number of examples.
    Where an error is raised, no file is left.

    Returns:
        The groups, and what is written as :data:`PARTITION`.

    Raises:
        LeakError: If a prompt holds an item that it asks for or that is held out of its client.
        DataError: If no client has a group, or none is left one.
        RunError: If a file cannot be written.
    """
    if not config.partition.changes_groups:
        store = build_groups(config, population, writer, path, progress)
        return _usable(config, store, summary_of(config.partition, store))
    place = hidden_sibling(path)
    try:
        natural = build_groups(config, population, writer, place, progress)
        with progress.track("partitioning groups", len(natural)) as advance:
            summary = store_partition(config.partition, natural, path, config.seed, advance)
    finally:
        place.unlink(missing_ok=True)
    return _usable(config, GroupStore.open(path), summary)


def _usable(
    config: schema.Experiment, store: GroupStore, summary: dict[str, Any]
) -> tuple[GroupStore, dict[str, Any]]:
    """Leave out what the objective cannot learn from, and count it in the summary."""
    store, num_groups, num_clients = drop_unusable(store, config.objective)
    if not num_groups:
        return store, summary
    dropped = summary["clients_dropped"] + num_clients
    return store, {
        **summary_of(config.partition, store),
        "clients_dropped": dropped,
        "unusable_groups": num_groups,
        "unusable_clients": num_clients,
    }


def partition_notes(config: schema.Experiment, run: Path) -> tuple[str, ...]:
    """Return notes on what clients train on, where that is not all of their own groups, whole.

    Raises:
        RunError: If the run folder's :data:`PARTITION` cannot be read.
    """
    changes = config.partition.changes_groups
    if not changes and not (run / PARTITION).exists():
        return ()
    summary = read_record(run / PARTITION, PartitionSummary)
    notes = (partition_note(config.partition, summary),) if changes else ()
    if not summary.unusable_groups:
        return notes
    return (
        *notes,
        f"Left out because {config.objective.name} cannot learn from them: "
        f"{summary.unusable_groups} groups and {summary.unusable_clients} clients.",
    )


def make_queries(
    config: schema.AnyExperiment, population: Population, *, everybody: bool = False
) -> tuple[ClientQueries, ...]:
    """Return what is asked of each client, of ``everybody`` or of ``evaluation.max_clients``.

    Raises:
        ConfigError: If the test is asked for, and ``split.test_share`` is 0.
    """
    part = config.evaluation.part
    if part == "test" and config.split.test_share == 0:
        raise ConfigError(
            "split.test_share must be above 0 where people are ranked on the test, or nothing is "
            "held out to ask for; got 0, which is for clients on machines of their own"
        )
    asked = [split for split in population.splits if split.held_out(part)]
    limit = config.evaluation.max_clients
    if limit is not None and limit < len(asked) and not everybody:
        drawn = stream(config.seed, "ranked_clients").permutation(len(asked))[:limit]
        asked = [asked[index] for index in sorted(drawn)]
    return tuple(
        ClientQueries(
            split.client,
            split.seen_in_training,
            split.visible_graph(part),
            tuple(fact.tail for fact in split.held_out(part)),
        )
        for split in asked
    )


def audit_queries(
    queries: Sequence[ClientQueries], writer: PromptWriter, catalogue: Catalogue, part: str
) -> int:
    """Audit every query and its prompt; return how many facts did not fit into the prompts.

    Raises:
        LeakError: If a prompt holds an item that is asked for.
        DataError: If a query cannot be asked: :func:`candidate_mask` says when.
    """
    left_out = 0
    for query in queries:
        candidate_mask(catalogue, query)
        prompt = writer.write(query.graph)
        audit_prompt(prompt, query.held_out, catalogue, place=f"{part} prompt")
        left_out += prompt.facts_left_out
    return left_out


def make_writer(settings: PromptSettings, base: BaseModel) -> PromptWriter:
    """Return what writes prompts and completions for a base model."""
    return PromptWriter(base.tokenizer, **asdict(settings))


def make_policy(config: schema.Experiment, base: BaseModel) -> PeftModel:
    """Put a fresh adapter on a base model, which is changed by it."""
    choice = config.adapter
    return attach_adapter(
        base.model,
        lora_rank=choice.lora_rank,
        lora_alpha=choice.lora_alpha,
        target_modules=choice.target_modules,
        seed=torch_seed(config.seed, "adapter"),
        rank_stabilized=choice.rank_stabilized,
        freeze_a=choice.freeze_a,
    )


def check_room(
    settings: PromptSettings, writer: PromptWriter, base: BaseModel, catalogue: Catalogue
) -> None:
    """Fail before any work where the longest prompt and title do not fit into the base model.

    Raises:
        ConfigError: If they do not.
    """
    longest = max(len(writer.completion_ids(name)) for name in catalogue.names)
    room = base.max_positions - longest
    if settings.max_tokens > room:
        raise ConfigError(
            f"prompt.max_tokens must be at most {room}, because {base.name} has "
            f"{base.max_positions} positions and the longest title takes {longest}; "
            f"got {settings.max_tokens}"
        )


def make_kl_baseline(
    config: schema.Experiment, policy: PeftModel, writer: PromptWriter, catalogue: Catalogue
) -> KlBaseline:
    """Return what computes the KL baseline of each round on public prompts of the catalogue.

    Where the objective takes none, there is none.
    """
    if not config.objective.takes_baseline:
        return no_baseline
    builder = GroupBuilder(catalogue, writer, config.groups.negatives)
    groups = public_groups(catalogue, builder, config.groups, seed=config.seed)
    return PublicBaseline(policy, groups)
