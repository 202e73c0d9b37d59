"""Score what is extracted from conversations: ReDial's dialogues and everyday sentences.

In each dialogue the tokens ``@id`` are replaced by the films' names, in three forms: with year,
without, and in lower case. Measured are

* how well the named films are found;
* the facts that ``pkgllm chat`` would write, against the seekers' own answers after the dialogue;
* the statements (film, liked), (film, disliked) and (film, seen) of every extractor, against the
  same answers;
* the facts written after the everyday sentences of the tests.

Rules were made, and the model's thresholds are set, on dialogues that are not scored.

    scripts/score_extraction.py --data $PKGLLM_DATA --base-model qwen3-mini --json scores.json
"""

import argparse
import hashlib
import json
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np

from pkgllm.assistant.extraction import Extraction, Extractor, Opinion, Turn
from pkgllm.assistant.extraction_model import ModelExtractor, Thresholds
from pkgllm.assistant.extraction_rules import RuleExtractor
from pkgllm.assistant.mentions import MentionFinder
from pkgllm.corpora.catalogue import Catalogue, bare_title
from pkgllm.corpora.redial_files import TRAIN_FILE, read_redial
from pkgllm.lm.base_model import load_base_model
from pkgllm.randomness import stream

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from helpers.everyday_sentences import FAMILIES, LATER_FAMILIES
from helpers.sentence_cases import CATALOGUE, cases
from helpers.sentence_cases import score as score_sentences

STATEMENTS = ("liked", "disliked", "seen")

FORMS: Mapping[str, Callable[[str], str]] = {
    "with year": str,
    "without year": bare_title,
    "lower case": lambda name: bare_title(name).lower(),
}
"""How a film's name is written into the messages."""


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
    forms: Mapping[str, Mapping[str, bool]]
    """What the seeker answered of each film: whether they liked it and saw it, where they said."""


class ModelOpinions:
    """A model's most probable opinions, as if they were written instead of asked about."""

    def __init__(self, extractor: ModelExtractor) -> None:
        self._extractor = extractor

    def extract(self, turns: Sequence[Turn]) -> Extraction:
        """Return the opinion of every film that is named."""
        return Extraction(tuple(self._extractor.opinions(turns)))


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


def read_answered(
    path: Path, catalogue: Catalogue, written: Callable[[str], str] = str
) -> list[Answered]:
    """Read the dialogues whose seeker answered anything, with names as ``written`` forms them."""
    dialogues = []
    for line in path.read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        answers = record["initiatorQuestions"] or {}
        forms = {
            film: {kind: answer[kind] == 1 for kind in ("liked", "seen") if answer[kind] != 2}
            for film, answer in answers.items()
        }
        stated = set()
        for film, form in forms.items():
            if "liked" in form:
                stated.add((film, "liked" if form["liked"] else "disliked"))
            if form.get("seen"):
                stated.add((film, "seen"))
        films: set[str] = set()

        def name(token: re.Match[str], films: set[str] = films) -> str:
            if token[1] not in catalogue:
                return token[0]
            films.add(token[1])
            return written(catalogue[token[1]].name)

        turns = [
            Turn(
                "person" if message["senderWorkerId"] == record["initiatorWorkerId"] else "partner",
                re.sub(r"@(\d+)", name, message["text"]),
            )
            for message in record["messages"]
        ]
        if stated:
            conversation = str(record["conversationId"])
            dialogues.append(
                Answered(conversation, tuple(turns), frozenset(films), frozenset(stated), forms)
            )
    return dialogues


def score(extractor: Extractor, dialogues: Sequence[Answered]) -> dict[str, Any]:
    """Return the scores of each kind of statement and of all together."""
    nothing = Score(0, 0, 0)
    totals = dict.fromkeys((*STATEMENTS, "all"), nothing)
    started = time.perf_counter()
    for dialogue in dialogues:
        scored = by_statement(extractor.extract(dialogue.turns), dialogue.answers)
        for kind, one in scored.items():
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


def titles(finder: MentionFinder, dialogues: Sequence[Answered]) -> dict[str, float]:
    """Return how well the named films are found.

    ``asked`` is the recall where a title of several films, which is asked about, counts as found.
    """
    total, asked = Score(0, 0, 0), Score(0, 0, 0)
    for dialogue in dialogues:
        meant = [
            mention.meant
            for turn in dialogue.turns
            for mention in finder.find(turn.text)
            if mention.kind == "item"
        ]
        films = [(film,) for film in dialogue.films]
        total += Score.of([(items[0].id,) for items in meant if len(items) == 1], films)
        asked += Score.of([(item.id,) for items in meant for item in items], films)
    return {"precision": total.precision, "recall": total.recall, "asked": asked.recall}


def written_facts(extractor: Extractor, dialogues: Sequence[Answered]) -> dict[str, float]:
    """Return how many facts would be written without asking, and how many are right.

    A fact is right or wrong by the seeker's form; one that the form leaves open counts as wrong in
    ``strict`` and not at all in ``precision``. ``reached`` is the share of the films of the form
    of which anything is written or asked about.
    """
    counts: Counter[str] = Counter()
    started = time.perf_counter()
    for dialogue in dialogues:
        extraction = extractor.extract(dialogue.turns)
        reached = {verdict.tail for verdict in extraction.verdicts}
        reached |= {item.id for question in extraction.questions for item in question.items}
        stated = {film for film, _ in dialogue.answers}
        counts["stated"] += len(stated)
        counts["reached"] += len(stated & reached)
        for verdict in extraction.verdicts:
            kind = "liked" if verdict.relation in ("liked", "disliked") else "seen"
            answer = dialogue.forms.get(verdict.tail, {}).get(kind)
            if answer is None:
                counts["open"] += 1
            else:
                counts["right" if answer == (verdict.relation == kind) else "wrong"] += 1
    seconds = time.perf_counter() - started
    messages = sum(len(dialogue.turns) for dialogue in dialogues)
    decided = counts["right"] + counts["wrong"]
    facts = decided + counts["open"]
    return {
        "facts": facts,
        "open": counts["open"],
        "precision": counts["right"] / max(1, decided),
        "strict": counts["right"] / max(1, facts),
        "reached": counts["reached"] / max(1, counts["stated"]),
        "ms_per_message": 1000 * seconds / messages,
    }


def sentence_figures() -> dict[str, dict[str, float]]:
    """Return how the everyday sentences are read, those written after the grammar apart."""
    extractor = RuleExtractor(MentionFinder(CATALOGUE))
    figures = {}
    for name, families in (
        ("all", FAMILIES | LATER_FAMILIES),
        ("written after the grammar", LATER_FAMILIES),
    ):
        result = score_sentences(extractor, cases(families))
        figures[name] = {
            "sentences": result.num_sentences,
            "said": result.num_said,
            "written": result.num_written,
            "opposite": len(result.opposite),
            "wrong": result.wrong_share,
            "recall": result.recall,
        }
    return figures


def read_data(root: Path, written: Callable[[str], str] = str) -> tuple[Catalogue, list[Answered]]:
    """Read the catalogue and the dialogues with answers."""
    catalogue = read_redial(root / "redial", movie_facts=None).catalogue
    return catalogue, read_answered(root / "redial" / TRAIN_FILE, catalogue, written)


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
    """Return the scores as tables."""
    lines = [
        "| how the title is written | precision | recall | with namesakes asked about "
        "| facts written | left open by the form | precision of the others | precision of all "
        "| films of the form written or asked about |",
        "|---|" + "---|" * 8,
    ]
    for form, row in scores["forms"].items():
        found, facts = row["titles"], row["facts"]
        cells = [found["precision"], found["recall"], found["asked"]]
        lines.append(
            f"| {form} | {' | '.join(f'{cell:.3f}' for cell in cells)} | {facts['facts']} "
            f"| {facts['open']} | {facts['precision']:.3f} | {facts['strict']:.3f} "
            f"| {facts['reached']:.3f} |"
        )
    lines += [
        "",
        "| everyday sentences | number | facts stated | facts written | opposite | wrong "
        "| written or asked about |",
        "|---|" + "---|" * 6,
    ]
    for name, row in scores["sentences"].items():
        lines.append(
            f"| {name} | {row['sentences']} | {row['said']} | {row['written']} | {row['opposite']} "
            f"| {row['wrong']:.3f} | {row['recall']:.3f} |"
        )
    lines += [
        "",
        f"| extractor | {' | '.join(STATEMENTS)} | all | mean F1 | ms |",
        "|---|" + "---|" * (len(STATEMENTS) + 3),
    ]
    for name, extracted in scores["extractors"].items():
        cells_of = [
            " / ".join(
                f"{extracted['statements'][kind][key]:.3f}" for key in ("precision", "recall", "f1")
            )
            for kind in (*STATEMENTS, "all")
        ]
        pace = 1000 * extracted["seconds"] / scores["held_out"]
        lines.append(
            f"| {name} | {' | '.join(cells_of)} | {extracted['mean_f1']:.3f} | {pace:.0f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Score and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="holds redial and movie_kg")
    parser.add_argument("--base-model", help="reads as well, with thresholds set here")
    parser.add_argument("--held-out", type=int, default=500, help="dialogues to score")
    parser.add_argument("--tuning", type=int, default=300, help="others to set thresholds on")
    parser.add_argument("--seed", type=int, default=0, help="of the draw of dialogues")
    parser.add_argument("--json", type=Path, help="file for the scores")
    options = parser.parse_args()
    catalogue, dialogues = read_data(options.data)
    order = stream(options.seed, "extraction").permutation(len(dialogues)).tolist()
    drawn = order[: options.held_out]
    held_out = [dialogues[index] for index in drawn]
    tuning = [dialogues[i] for i in order[options.held_out : options.held_out + options.tuning]]
    finder = MentionFinder(catalogue)
    rules = RuleExtractor(finder)
    extractors: dict[str, Extractor] = {"every film": EveryFilm(finder), "rules": rules}
    data_file = options.data / "redial" / TRAIN_FILE
    scores: dict[str, Any] = {
        "data": hashlib.sha256(data_file.read_bytes()).hexdigest(),
        "held_out": len(held_out),
        "tuning": len(tuning),
        "answered": len(dialogues),
        "forms": {},
        "sentences": sentence_figures(),
    }
    for form, written in FORMS.items():
        _, named = read_data(options.data, written)
        chosen = [named[index] for index in drawn]
        scores["forms"][form] = {
            "titles": titles(finder, chosen),
            "facts": written_facts(rules, chosen),
        }
    if options.base_model:
        base = load_base_model(options.base_model)
        parts = (finder, base.model, base.tokenizer)
        thresholds = tuned(ModelExtractor(*parts, max_positions=base.max_positions), tuning)
        scores["thresholds"] = asdict(thresholds)
        extractors[options.base_model] = ModelOpinions(
            ModelExtractor(*parts, max_positions=base.max_positions, thresholds=thresholds)
        )
    scores["extractors"] = {name: score(one, held_out) for name, one in extractors.items()}
    if options.json:
        options.json.write_text(json.dumps(scores, indent=2) + "\n", encoding="utf-8")
    print(markdown(scores))
    print(f"data: {scores['data'][:12]}, thresholds: {scores.get('thresholds')}")


if __name__ == "__main__":
    main()
