r"""Extraction by the log-probabilities of a language model, which generates nothing.

For each item that the conversation names, the candidate continuations are ``(user, liked, Heat
(1995))`` and the same with ``disliked``, ``seen`` and ``unseen``. With :math:`s_r` the exact
log-probability of the line of relation :math:`r` after the conversation, minus that after an empty
one (calibration as in Zhao et al. 2021, arXiv:2102.09690), the item

* gets a verdict if :math:`\max(s_\text{liked}, s_\text{disliked}) -
  \max(s_\text{seen}, s_\text{unseen})` is at least a threshold,
* is liked if :math:`s_\text{liked} - s_\text{disliked}` is at least another, else disliked,
* is seen if :math:`\max(s_\text{liked}, s_\text{disliked}, s_\text{seen}) - s_\text{unseen}`
  is at least a third.

The adapter of the model is disabled.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from pkgllm.assistant.extraction import Extraction, Opinion, Question, Turn
from pkgllm.assistant.mentions import MentionFinder
from pkgllm.corpora.catalogue import Item
from pkgllm.evaluation.ranking.language_model import LanguageModelScorer
from pkgllm.evaluation.ranking.trie import CatalogueTrie
from pkgllm.evaluation.scorer import ClientQueries
from pkgllm.graph.personal_graph import PersonalGraph, Relation
from pkgllm.lm.chat_template import PlainText

RELATIONS_SCORED: tuple[Relation, ...] = ("liked", "disliked", "seen", "unseen")

_QUERY = ClientQueries("conversation", False, PersonalGraph("conversation", ()), ())


@dataclass(frozen=True, slots=True)
class Margins:
    """Differences of calibrated log-probabilities between relations, nats."""

    verdict: float
    liked: float
    seen: float


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Least margins; by default 0, which relies on the calibration alone."""

    verdict: float = 0.0
    liked: float = 0.0
    seen: float = 0.0

    def opinion(self, margins: Margins) -> Opinion:
        """Return the opinion for some margins."""
        liked = margins.liked >= self.liked if margins.verdict >= self.verdict else None
        return Opinion(liked, margins.seen >= self.seen)


class ModelExtractor:
    """Extracts by log-probabilities.

    Args:
        finder: Finds the named items.
        model: A causal language model, or one with an adapter, which is disabled.
        tokenizer: Of the model.
        max_positions: Longest sequence of the model, tokens; a longer conversation loses its
            beginning.
        thresholds: Tuned on conversations with known answers.
    """

    def __init__(
        self,
        finder: MentionFinder,
        model: PreTrainedModel | PeftModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        max_positions: int,
        thresholds: Thresholds | None = None,
    ) -> None:
        self._finder = finder
        self._model = model
        self._text = PlainText(tokenizer)
        self._max_positions = max_positions
        self._thresholds = thresholds or Thresholds()

    def extract(self, turns: Sequence[Turn]) -> Extraction:
        """Return what the person probably said, as questions: a probability is not certain."""
        return Extraction(
            questions=tuple(
                Question((item,), opinion, "verdict") for item, opinion in self.opinions(turns)
            )
        )

    def opinions(self, turns: Sequence[Turn]) -> Iterator[tuple[Item, Opinion]]:
        """Yield every item that the conversation names, with the most probable opinion."""
        for item, margins in self.margins(turns):
            yield item, self._thresholds.opinion(margins)

    def margins(self, turns: Sequence[Turn]) -> Iterator[tuple[Item, Margins]]:
        """Yield every item that the conversation names, with its margins."""
        items = {
            mention.meant[0].id: mention.meant[0]
            for turn in turns
            for mention in self._finder.find(turn.text)
            if mention.kind == "item" and len(mention.meant) == 1
        }
        if not items:
            return
        lines = [
            f"(user, {relation}, {item.name})"
            for item in items.values()
            for relation in RELATIONS_SCORED
        ]
        scores = self._scores(_as_text(turns), lines)
        baseline = self._scores(_as_text(()), lines)
        for place, item in enumerate(items.values()):
            at = slice(place * len(RELATIONS_SCORED), (place + 1) * len(RELATIONS_SCORED))
            liked, disliked, seen, unseen = (
                one - other for one, other in zip(scores[at], baseline[at], strict=True)
            )
            verdict = max(liked, disliked)
            yield (
                item,
                Margins(verdict - max(seen, unseen), liked - disliked, max(verdict, seen) - unseen),
            )

    def _scores(self, text: str, lines: Sequence[str]) -> list[float]:
        sequences = [(*self._text.ids(line), *self._text.ids("\n")) for line in lines]
        trie = CatalogueTrie(sequences, names=lines)
        room = self._max_positions - trie.longest_input
        prompt = self._text.ids(text)[-room:]
        scorer = LanguageModelScorer(
            "extraction",
            self._model,
            lambda graph: prompt,
            trie,
            max_positions=self._max_positions,
            longest_prompt=len(prompt),
            with_adapter=False,
        )
        scores: list[float] = scorer.scores([_QUERY])[0].tolist()
        return scores


def _as_text(turns: Sequence[Turn]) -> str:
    speakers = {"person": "User", "partner": "Assistant"}
    lines = "\n".join(f"{speakers[turn.speaker]}: {turn.text}" for turn in turns)
    return f"{lines}\n"
