"""A trained run as a person's recommender, and as the partner of a conversation."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pkgllm.assistant.conversation import Conversation
from pkgllm.assistant.extraction import Extractor
from pkgllm.assistant.extraction_model import ModelExtractor
from pkgllm.assistant.extraction_rules import RuleExtractor
from pkgllm.assistant.mentions import MentionFinder
from pkgllm.assistant.recommend import Recommender
from pkgllm.assistant.requests import Request, Response, respond_to_record
from pkgllm.config.load import load_config
from pkgllm.config.schema import Experiment
from pkgllm.corpora.catalogue import Catalogue
from pkgllm.graph.personal_record import PersonalRecord
from pkgllm.graph.rdf import read_record
from pkgllm.lm.adapter import load_adapter
from pkgllm.lm.base_model import BaseModel
from pkgllm.pipeline.build import check_room, make_writer, read_corpus
from pkgllm.pipeline.run_record import check_same_base, check_same_configuration, load_base
from pkgllm.runs.folder import RunFolder

ExtractorName = Literal["rules", "model"]


@dataclass(frozen=True, slots=True)
class TrainedModel:
    """A run's adapter on its base model, with the run's configuration."""

    run: RunFolder
    config: Experiment
    base: BaseModel
    recommender: Recommender


def open_recommender(
    path: Path, *, catalogue: Catalogue | None = None, base_model: str | None = None
) -> TrainedModel:
    """Load a run's adapter with its prompt settings and a catalogue.

    Args:
        path: The run folder.
        catalogue: Items of any class; those of the run's corpus when absent.
        base_model: Folder or name of the run's base model; as in the run when absent.

    Raises:
        RunError: If the folder contains no trained adapter.
        ModelError: If the base model is not the one that the adapter was trained on.
        PkgllmError: If anything else that the run needs cannot be used.
    """
    run = RunFolder.open(path, needed=("config.yaml", "provenance.json", "adapter"))
    config = load_config(str(run.config))
    check_same_configuration(run, config, may_differ=("evaluation.",))
    if base_model is not None:
        elsewhere = config.base_model.model_copy(update={"name": base_model})
        config = config.model_copy(update={"base_model": elsewhere})
    items = read_corpus(config).catalogue if catalogue is None else catalogue
    base = load_base(config)
    check_same_base(run, base)
    writer = make_writer(config.prompt, base)
    check_room(config.prompt, writer, base, items)
    policy = load_adapter(base.model, run.adapter)
    recommender = Recommender(policy, writer, items, max_positions=base.max_positions)
    return TrainedModel(run, config, base, recommender)


def open_conversation(
    pkg: Path,
    adapter: Path,
    *,
    extractor: ExtractorName,
    top: int,
    catalogue: Catalogue | None = None,
    base_model: str | None = None,
) -> Conversation:
    """Load a trained run as the partner of a conversation.

    Args:
        pkg: The person's graph.
        adapter: The run folder.
        extractor: The kind of extractor of opinions.
        top: Recommendations to each message.
        catalogue: As of :func:`open_recommender`.
        base_model: As of :func:`open_recommender`.

    Raises:
        DataError: If the graph cannot be read.
        PkgllmError: If anything of the run cannot be used.
    """
    read_record(pkg)
    trained = open_recommender(adapter, catalogue=catalogue, base_model=base_model)

    def answer(record: PersonalRecord, request: Request) -> Response:
        return respond_to_record(trained.recommender, record, request)

    finder = MentionFinder(trained.recommender.catalogue)
    return Conversation(
        path=pkg,
        extractor=_extractor(extractor, finder, trained),
        finder=finder,
        scopes=trained.recommender.scopes,
        respond=answer,
        k=top,
    )


def _extractor(name: ExtractorName, finder: MentionFinder, trained: TrainedModel) -> Extractor:
    match name:
        case "rules":
            return RuleExtractor(finder)
        case "model":
            return ModelExtractor(
                finder,
                trained.recommender.model,
                trained.base.tokenizer,
                max_positions=trained.base.max_positions,
            )
