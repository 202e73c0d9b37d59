"""Score what is extracted from ReDial's dialogues against the people's own answers.

In each dialogue the tokens ``@id`` are replaced by the films' names, so that finding the films is a
part of what is measured. An answer is (film, liked), (film, disliked) or (film, seen). Rules were
made, and the model's thresholds are set, on dialogues that are not scored.

    scripts/score_extraction.py --data $PKGLLM_DATA --base-model qwen3-mini --json scores.json
"""

import argparse
import json
import re
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np

from pkgllm.assistant.extraction import Extraction, Extractor, Opinion, Turn
from pkgllm.assistant.extraction_model import ModelExtractor, Thresholds
from pkgllm.assistant.extraction_rules import RuleExtractor
from pkgllm.assistant.mentions import MentionFinder
from pkgllm.corpora.catalogue import Catalogue
from pkgllm.corpora.redial_files import TRAIN_FILE, read_redial
from pkgllm.lm.base_model import load_base_model
from pkgllm.randomness import stream

STATEMENTS = ("liked", "disliked", "seen")


@dataclass(frozen=True, slots=True)
class Score:
    """Agreement of extracted statements with the person's own answers.

    Example:
        >>> score = Score.of([("7", "liked"), ("8", "liked")], [("7", "liked"), ("9", "seen")])
        >>> score.precision, score.recall, score.f1
        (0.5, 0.5, 0.5)
    """

    num_right: int
    num_extracted: int
    num_answered: int

    @classmethod
    def of(
        cls, extracted: Iterable[tuple[str, ...]], answered: Iterable[tuple[str, ...]]
    ) -> "Score":
        """Compare statements, each counted once."""
        distinct, correct = set(extracted), set(answered)
        return cls(len(distinct & correct), len(distinct), len(correct))

    def __add__(self, other: "Score") -> "Score":
        return Score(
            self.num_right + other.num_right,
            self.num_extracted + other.num_extracted,
            self.num_answered + other.num_answered,
        )

    @property
    def precision(self) -> float:
        """Share of the extracted statements that are right; 0 if there are none."""
        return self.num_right / self.num_extracted if self.num_extracted else 0.0

    @property
    def recall(self) -> float:
        """Share of the answers that were extracted; 0 if there are none."""
        return self.num_right / self.num_answered if self.num_answered else 0.0

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall; 0 if nothing is right."""
        total = self.num_extracted + self.num_answered
        return 2 * self.num_right / total if total else 0.0


def statements(extraction: Extraction) -> Iterable[tuple[str, str]]:
    """Yield (item, statement) for ``liked``, ``disliked`` and ``seen``, as answers are scored."""
    for item, opinion in extraction.opinions:
        if opinion.liked is not None:
            yield item.id, "liked" if opinion.liked else "disliked"
        if opinion.seen:
            yield item.id, "seen"


@dataclass(frozen=True, slots=True)
class Answered:
    """A dialogue, and what its seeker answered about its films."""

    conversation: str
    turns: tuple[Turn, ...]
    films: frozenset[str]
    """The films that messages name."""
    answers: frozenset[tuple[str, str]]


class EveryFilm:
    """Takes every film that is named for one that was seen and liked: what words must beat."""

    def __init__(self, finder: MentionFinder) -> None:
        self._finder = finder

    def extract(self, turns: Sequence[Turn]) -> Extraction:
        """Return every film as liked and seen."""
        items = {
            mention.meant[0].id: mention.meant[0]
            for turn in turns
            for mention in self._finder.find(turn.text)
            if mention.kind == "item" and len(mention.meant) == 1
        }
        return Extraction(tuple((item, Opinion(True, True)) for item in items.values()))


def read_answered(path: Path, catalogue: Catalogue) -> list[Answered]:
    """Read the dialogues whose seeker answered anything."""
    found = []
    for line in path.read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        answers = record["initiatorQuestions"] or {}
        told = set()
        for film, answer in answers.items():
            if answer["liked"] != 2:
                told.add((film, "liked" if answer["liked"] else "disliked"))
            if answer["seen"] == 1:
                told.add((film, "seen"))
        films: set[str] = set()

        def name(found: re.Match[str], films: set[str] = films) -> str:
            if found[1] not in catalogue:
                return found[0]
            films.add(found[1])
            return catalogue[found[1]].name

        turns = [
            Turn(
                "person" if message["senderWorkerId"] == record["initiatorWorkerId"] else "partner",
                re.sub(r"@(\d+)", name, message["text"]),
            )
            for message in record["messages"]
        ]
        if told:
            found.append(
                Answered(
                    str(record["conversationId"]), tuple(turns), frozenset(films), frozenset(told)
                )
            )
    return found


def score(extractor: Extractor, dialogues: Sequence[Answered]) -> dict[str, Any]:
    """Return the scores of each kind of statement and of all together."""
    nothing = Score(0, 0, 0)
    totals = dict.fromkeys((*STATEMENTS, "all"), nothing)
    started = time.perf_counter()
    for dialogue in dialogues:
        found = by_statement(extractor.extract(dialogue.turns), dialogue.answers)
        for kind, one in found.items():
            totals[kind] += one
            totals["all"] += one
    return {
        "statements": {
            kind: {
                "precision": total.precision,
                "recall": total.recall,
                "f1": total.f1,
                "extracted": total.num_extracted,
                "answered": total.num_answered,
            }
            for kind, total in totals.items()
        },
        "mean_f1": mean(totals[kind].f1 for kind in STATEMENTS),
        "seconds": time.perf_counter() - started,
    }


def linking(finder: MentionFinder, dialogues: Sequence[Answered]) -> dict[str, float]:
    """Return how well the named films are found."""
    total = Score(0, 0, 0)
    for dialogue in dialogues:
        found = {
            (mention.meant[0].id,)
            for turn in dialogue.turns
            for mention in finder.find(turn.text)
            if mention.kind == "item" and len(mention.meant) == 1
        }
        total += Score.of(found, [(film,) for film in dialogue.films])
    return {"precision": total.precision, "recall": total.recall, "f1": total.f1}


def read_data(root: Path) -> tuple[Catalogue, list[Answered]]:
    """Read the catalogue and the dialogues with answers."""
    catalogue = read_redial(root / "redial", movie_facts=None).catalogue
    return catalogue, read_answered(root / "redial" / TRAIN_FILE, catalogue)


def tuned(extractor: ModelExtractor, dialogues: Sequence[Answered]) -> Thresholds:
    """Return the thresholds with the best mean F1 of the three statements.

    Tried are the tenths of each margin's distribution, one threshold after the other, twice.
    """
    measured = [(list(extractor.margins(d.turns)), d.answers) for d in dialogues]
    margins = [margin for found, _ in measured for _, margin in found]
    tenths = {
        name: np.quantile([getattr(m, name) for m in margins], np.linspace(0, 1, 11)).tolist()
        for name in ("verdict", "liked", "seen")
    }

    def quality(thresholds: Thresholds) -> float:
        totals = dict.fromkeys(STATEMENTS, Score(0, 0, 0))
        for found, answers in measured:
            extraction = Extraction(tuple((i, thresholds.opinion(m)) for i, m in found))
            for kind, one in by_statement(extraction, answers).items():
                totals[kind] += one
        return mean(total.f1 for total in totals.values())

    best = Thresholds()
    for name in (*tenths, *tenths):
        best = max((replace(best, **{name: tried}) for tried in tenths[name]), key=quality)
    return best


def by_statement(extraction: Extraction, answers: Collection[tuple[str, str]]) -> dict[str, Score]:
    """Score one dialogue, each kind of statement apart."""
    extracted = set(statements(extraction))
    return {
        kind: Score.of(
            [one for one in extracted if one[1] == kind], [one for one in answers if one[1] == kind]
        )
        for kind in STATEMENTS
    }


def markdown(scores: Mapping[str, Any]) -> str:
    """Return the scores as a table, precision / recall / F1 in each cell."""
    lines = [
        f"| extractor | {' | '.join(STATEMENTS)} | all | mean F1 | ms |",
        "|---|" + "---|" * (len(STATEMENTS) + 3),
    ]
    for name, found in scores["extractors"].items():
        cells = [
            " / ".join(
                f"{found['statements'][kind][key]:.3f}" for key in ("precision", "recall", "f1")
            )
            for kind in (*STATEMENTS, "all")
        ]
        pace = 1000 * found["seconds"] / scores["held_out"]
        lines.append(f"| {name} | {' | '.join(cells)} | {found['mean_f1']:.3f} | {pace:.0f} |")
    return "\n".join(lines)


def main() -> None:
    """Score and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="holds redial and movie_kg")
    parser.add_argument("--base-model", help="is asked as well, with thresholds set here")
    parser.add_argument("--held-out", type=int, default=500, help="dialogues to score")
    parser.add_argument("--tuning", type=int, default=300, help="others to set thresholds on")
    parser.add_argument("--seed", type=int, default=0, help="of the draw of dialogues")
    parser.add_argument("--json", type=Path, help="file for the scores")
    given = parser.parse_args()
    catalogue, dialogues = read_data(given.data)
    order = stream(given.seed, "extraction").permutation(len(dialogues)).tolist()
    held_out = [dialogues[index] for index in order[: given.held_out]]
    tuning = [dialogues[i] for i in order[given.held_out : given.held_out + given.tuning]]
    finder = MentionFinder(catalogue)
    extractors: dict[str, Extractor] = {
        "every film": EveryFilm(finder),
        "rules": RuleExtractor(finder),
    }
    scores: dict[str, Any] = {
        "held_out": len(held_out),
        "tuning": len(tuning),
        "answered": len(dialogues),
        "linking": linking(finder, held_out),
    }
    if given.base_model:
        base = load_base_model(given.base_model)
        asked = (finder, base.model, base.tokenizer)
        thresholds = tuned(ModelExtractor(*asked, max_positions=base.max_positions), tuning)
        scores["thresholds"] = asdict(thresholds)
        extractors[given.base_model] = ModelExtractor(
            *asked, max_positions=base.max_positions, thresholds=thresholds
        )
    scores["extractors"] = {name: score(one, held_out) for name, one in extractors.items()}
    if given.json:
        given.json.write_text(json.dumps(scores, indent=2) + "\n", encoding="utf-8")
    print(markdown(scores))
    print(f"linking: {scores['linking']}, thresholds: {scores.get('thresholds')}")


if __name__ == "__main__":
    main()
