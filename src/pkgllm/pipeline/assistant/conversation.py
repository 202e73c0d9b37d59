"""A trained run as the partner of a conversation: what ``pkgllm chat`` does."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pkgllm.assistant.conversation import Conversation
from pkgllm.assistant.extraction import Extractor
from pkgllm.assistant.extraction_model import ModelExtractor
from pkgllm.assistant.extraction_rules import RuleExtractor
from pkgllm.assistant.guidance import in_words
from pkgllm.assistant.mentions import MentionFinder
from pkgllm.assistant.recommend import Recommendation, Recommender
from pkgllm.corpora.catalogue import Catalogue
from pkgllm.graph.personal_record import PersonalRecord
from pkgllm.graph.rdf import read_record
from pkgllm.pipeline.assistant.recommendation import Question, advise
from pkgllm.pipeline.assistant.recommender import TrainedModel, open_recommender

ExtractorName = Literal["rules", "model"]


def open_conversation(
    pkg: Path,
    adapter: Path,
    *,
    extractor: ExtractorName,
    top: int,
    catalogue: Catalogue | None = None,
    base_model: str | None = None,
) -> Conversation:
    """Load what a conversation needs.

    Args:
        pkg: The person's graph.
        adapter: The folder of a finished run.
        extractor: What reads the person's messages.
        top: Recommendations to each message.
        catalogue: What can be spoken of and recommended; the items of the run's corpus if absent.
        base_model: Where the run's base model is found here; as in the run if absent.

    Raises:
        DataError: If the graph cannot be read.
        PkgllmError: If anything of the run cannot be used.
    """
    read_record(pkg)
    trained = open_recommender(adapter, catalogue=catalogue, base_model=base_model)

    def recommend(record: PersonalRecord, message: str) -> Sequence[Recommendation]:
        return answer(trained.recommender, record, message, top=top)

    return Conversation(pkg, _extractor(extractor, trained), recommend)


def answer(
    recommender: Recommender, record: PersonalRecord, message: str, *, top: int
) -> Sequence[Recommendation]:
    """Recommend from a record: its graph, and its rules.

    The rules adapt the graph, and what the person prefers is also told to the model in words, since
    a graph may hold nothing of it.

    Raises:
        PkgllmError: As :func:`~pkgllm.pipeline.assistant.recommendation.advise`.
    """
    preferred = " ".join(
        f"Prefer {in_words(rule.scope, rule.value)}."
        for rule in record.rules
        if rule.direction == "prefer"
    )
    request = " ".join(part for part in (message.strip(), preferred) if part)
    question = Question(request=request, standing_rules=record.rules, k=top)
    return advise(recommender, record.graph, question).recommendations


def _extractor(name: ExtractorName, trained: TrainedModel) -> Extractor:
    finder = MentionFinder(trained.recommender.catalogue)
    if name == "rules":
        return RuleExtractor(finder)
    return ModelExtractor(
        finder,
        trained.recommender.model,
        trained.base.tokenizer,
        max_positions=trained.base.max_positions,
    )
