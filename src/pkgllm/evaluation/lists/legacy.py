"""The published way to score answers, and the published leak, to show how far both inflate.

NEVER a result. Nothing here is used by :func:`pkgllm.evaluation.protocol.evaluate`. The numbers are
inflated, each for a reason of its own:

* an answer without a list leaves numerator and denominator alike, so a model gains by silence;
* a goal's title loses its last word and matches anywhere in a line, so a sequel counts for the film
  before it, a title of one word counts for all that contain its letters, and a title of one word
  without a year counts for every line;
* a line that repeats a match counts again, so recall can exceed 1;
* in the leaky mode the prompt holds the goal, so copying is enough.

Source: the public code that belongs to arXiv:2603.13264, as read in July 2026.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pkgllm.corpora.catalogue import Catalogue
from pkgllm.corpora.splits import ClientSplit
from pkgllm.evaluation.lists.lists import answer_lines, without_mark
from pkgllm.evaluation.lists.results import Lists, list_results
from pkgllm.evaluation.scorer import ClientQueries
from pkgllm.graph.personal_graph import Fact, PersonalGraph
from pkgllm.prompts.prompts import Prompt, PromptWriter

_THINKING, _THOUGHT = "<think>", "</think>"


@dataclass(frozen=True, slots=True)
class LegacyScore:
    """Inflated scores of stored answers; only to show the gap to an honest protocol."""

    num_answers: int
    """All answers, parsable or not."""
    num_scored: int
    """The ones that could be parsed; no number below knows of the others."""
    num_goals: int
    """Goals of the scored answers."""
    num_lines: int
    """Recommendation lines of the scored answers."""
    true_positives: int
    """Lines that match any goal."""
    first_matches: tuple[int, ...]
    """For each scored answer with a match the number of its first matching line, from 1."""

    @property
    def precision(self) -> float:
        """True positives over lines; 0 without a line."""
        return self.true_positives / self.num_lines if self.num_lines else 0.0

    @property
    def recall(self) -> float:
        """True positives over goals, above 1 where lines repeat a match; 0 without a goal."""
        return self.true_positives / self.num_goals if self.num_goals else 0.0

    @property
    def f1(self) -> float:
        """Harmonic mean of both; 0 where both are."""
        total = self.precision + self.recall
        return 2 * self.precision * self.recall / total if total else 0.0

    @property
    def mrr(self) -> float:
        """Mean of one over the number of the first matching line, over the scored answers."""
        return sum(1 / first for first in self.first_matches) / max(self.num_scored, 1)

    def hits_at(self, k: int) -> float:
        """Return the share of scored answers with a match within the first ``k`` lines."""
        return sum(first <= k for first in self.first_matches) / max(self.num_scored, 1)


def legacy_score(
    answers: Sequence[tuple[Sequence[str], str]], *, bullets_only: bool = True
) -> LegacyScore:
    """Score stored answers as published, with all that inflates the numbers.

    A line matches a goal if the goal's name without its last word, words being parted by spaces,
    stands in it, whatever the case.

    Args:
        answers: For each query the goals' names and the answer's text. Give an answer that was cut
            off as an empty text: the published code left those out.
        bullets_only: True takes only lines with a bullet or a number for recommendations, as
            published; False takes every line, for models that are asked for bare titles.

    Raises:
        ValueError: If there is no answer, or one without a goal.

    Example:
        >>> score = legacy_score([
        ...     (["The Last Harbour (1995)"], "- The Last Harbour 2: Low Tide (1999)"),
        ...     (["Quiet River (1950)"], "I would rather not say."),
        ... ])
        >>> score.num_answers, score.num_scored, score.hits_at(1), score.precision
        (2, 1, 1.0, 1.0)
    """
    if not answers:
        raise ValueError("at least one answer must be given, got none")
    scores = [_score_one(goals, text, bullets_only) for goals, text in answers]
    return LegacyScore(
        num_answers=len(scores),
        num_scored=sum(score.num_scored for score in scores),
        num_goals=sum(score.num_goals for score in scores),
        num_lines=sum(score.num_lines for score in scores),
        true_positives=sum(score.true_positives for score in scores),
        first_matches=tuple(first for score in scores for first in score.first_matches),
    )


def leaky_graph(visible: PersonalGraph, held_out: Sequence[Fact]) -> PersonalGraph:
    """Return the graph as the published code stored it: with the answers in it, as ``liked``.

    For evaluation only, to show what the leak alone is worth. The leak audit
    (:func:`pkgllm.prompts.audit.audit_prompt`) refuses a prompt that is written from it, and
    so does :func:`pkgllm.evaluation.scorer.candidate_mask` the graph: no ordinary run can use it.

    Args:
        visible: The facts strictly earlier than the held-out ones.
        held_out: The client's held-out liked facts.

    Raises:
        ValueError: If nothing is held out, a held-out fact is not ``liked``, or its item is already
            visible.
    """
    if not held_out:
        raise ValueError(f"client {visible.owner!r}: a held-out fact is needed, got none")
    for fact in held_out:
        if fact.relation != "liked":
            raise ValueError(
                f"client {visible.owner!r}: held-out facts must be liked, got {fact.relation!r}"
            )
    return visible.only((*visible.facts, *held_out))


def _score_one(goals: Sequence[str], text: str, bullets_only: bool) -> LegacyScore:
    if not goals:
        raise ValueError("every answer must have a goal, got one with none")
    lines = _recommendations(text, bullets_only)
    if not lines:
        return LegacyScore(1, 0, 0, 0, 0, ())
    keys = [goal.rpartition(" ")[0].lower() for goal in goals]
    matches = [any(key in line.lower() for key in keys) for line in lines]
    first = (matches.index(True) + 1,) if any(matches) else ()
    return LegacyScore(1, 1, len(goals), len(lines), sum(matches), first)


def _recommendations(text: str, bullets_only: bool) -> list[str]:
    _, thinking, thought = text.rpartition(_THINKING)
    if thinking and _THOUGHT not in thought:
        return []
    lines = answer_lines(text.rpartition(_THOUGHT)[2])
    return [line for line in lines if not bullets_only or without_mark(line) != line]


def leaky_prompts(
    splits: Iterable[ClientSplit],
    queries: Sequence[ClientQueries],
    writer: PromptWriter,
    part: Literal["test", "validation"],
) -> list[Prompt]:
    """Return prompts that hold their answers, as the published code stored them.

    They are never audited, because the audit would rightly refuse them.
    """
    held_out = {split.client: split.held_out(part) for split in splits}
    return [writer.write(leaky_graph(query.graph, held_out[query.client])) for query in queries]


def legacy_results(
    catalogue: Catalogue,
    queries: Sequence[ClientQueries],
    lists: Lists,
    *,
    k: int,
    resamples: int,
    seed: int,
) -> dict[str, Any]:
    """Return inflated and honest numbers of the same answers, ready for JSON.

    ``inflated.<model>.<mode>`` holds what :class:`LegacyScore` does, over all samples; ``honest``
    what :func:`pkgllm.evaluation.lists.results.list_results` returns.
    """
    goals = [[catalogue[item].name for item in query.held_out] for query in queries]
    inflated: dict[str, Any] = {}
    for (model, mode), samples in lists.items():
        # The published code left out what was cut off; our models are asked for bare titles.
        answers = [
            (names, client.text if client.text and client.finished else "")
            for sample in samples
            for names, client in zip(goals, sample, strict=True)
        ]
        score = legacy_score(answers, bullets_only=False)
        inflated.setdefault(model, {})[mode] = _numbers(score)
    honest = list_results(lists, queries, k=k, resamples=resamples, seed=seed)
    return {"inflated": inflated, "honest": honest}


def _numbers(score: LegacyScore) -> dict[str, int | float]:
    return {
        "answers": score.num_answers,
        "scored": score.num_scored,
        "lines": score.num_lines,
        "goals": score.num_goals,
        "true_positives": score.true_positives,
        "precision": score.precision,
        "recall": score.recall,
        "f1": score.f1,
        "mrr": score.mrr,
        "hits@1": score.hits_at(1),
        "hits@3": score.hits_at(3),
        "hits@10": score.hits_at(10),
    }
