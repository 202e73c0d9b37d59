import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from pkgllm.assistant.extraction import Turn
from pkgllm.assistant.extraction_model import ModelExtractor
from pkgllm.assistant.extraction_rules import RuleExtractor
from pkgllm.assistant.mentions import MentionFinder
from pkgllm.corpora.catalogue import Catalogue, Item
from pkgllm.lm.base_model import BaseModel

SCRIPT = Path(__file__).parents[2] / "scripts" / "score_extraction.py"
FILMS = {"11": "Heat (1995)", "12": "Alien (1979)"}


@pytest.fixture(scope="module")
def scoring() -> ModuleType:
    spec = importlib.util.spec_from_file_location("score_extraction", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look their module up.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def data(
    tmp_path: Path,
    make_dialogue: Callable[..., dict[str, Any]],
    write_redial: Callable[..., Path],
) -> Path:
    """The seeker liked one film, and says of the other that it is boring, but did not answer."""
    told = make_dialogue(1, 5, {"11": "liked"}, names=FILMS, text="Have you seen @11 ?")
    told["messages"].append(
        {
            "timeOffset": 1,
            "text": "Yes, loved it. @12 is boring",
            "senderWorkerId": 5,
            "messageId": 2,
        }
    )
    untold = make_dialogue(2, 6, {"11": "nothing"})
    write_redial(tmp_path, [told, untold], FILMS)
    return tmp_path


def test_ids_become_names_and_answers_statements(scoring: ModuleType, data: Path) -> None:
    _, (dialogue,) = scoring.read_data(data)
    assert [(turn.speaker, turn.text) for turn in dialogue.turns] == [
        ("partner", "Have you seen Heat (1995) ?"),
        ("person", "Yes, loved it. Alien (1979) is boring"),
    ]
    assert dialogue.answers == {("11", "liked"), ("11", "seen")}
    assert dialogue.films == {"11", "12"}


def test_scores_by_hand(scoring: ModuleType, data: Path) -> None:
    catalogue, dialogues = scoring.read_data(data)
    finder = MentionFinder(catalogue)
    assert set(scoring.titles(finder, dialogues).values()) == {1}
    found = scoring.score(RuleExtractor(finder), dialogues)["statements"]
    # (11, liked), (11, seen) are right; (12, disliked), (12, seen) nobody answered.
    assert found["liked"] == {
        "precision": 1,
        "recall": 1,
        "f1": 1,
        "extracted": 1,
        "answered": 1,
    }
    assert (found["seen"]["precision"], found["seen"]["recall"]) == (0.5, 1)
    assert (found["disliked"]["precision"], found["disliked"]["extracted"]) == (0, 1)
    assert (found["all"]["precision"], found["all"]["recall"]) == (0.5, 1)


def test_thresholds_are_never_worse_than_none_where_they_are_set(
    scoring: ModuleType, data: Path, tiny_base: BaseModel
) -> None:
    catalogue, dialogues = scoring.read_data(data)
    asked = (MentionFinder(catalogue), tiny_base.model, tiny_base.tokenizer)
    thresholds = scoring.tuned(ModelExtractor(*asked, max_positions=1024), dialogues)
    plain, tuned = (
        scoring.score(
            scoring.ModelOpinions(ModelExtractor(*asked, max_positions=1024, thresholds=t)),
            dialogues,
        )
        for t in (None, thresholds)
    )
    assert tuned["mean_f1"] >= plain["mean_f1"]
    assert json.dumps(tuned)


def test_a_verdict_is_scored_as_seen_too_and_interest_as_nothing(scoring: ModuleType) -> None:
    extractor = RuleExtractor(MentionFinder(Catalogue([Item("2", "Heat (1995)")])))
    liked = extractor.extract([Turn("person", "I loved Heat (1995)")])
    assert set(scoring.statements(liked)) == {("2", "liked"), ("2", "seen")}
    wanted = extractor.extract([Turn("person", "I want to see Heat (1995)")])
    assert set(scoring.statements(wanted)) == set()


def test_written_facts_are_right_wrong_or_left_open_by_the_form(
    scoring: ModuleType, data: Path
) -> None:
    catalogue, dialogues = scoring.read_data(data)
    facts = scoring.written_facts(RuleExtractor(MentionFinder(catalogue)), dialogues)
    # (11, liked) is right; of 12, which is disliked, the form says nothing.
    assert (facts["facts"], facts["open"]) == (2, 1)
    assert (facts["precision"], facts["strict"]) == (1, 0.5)


def test_a_title_is_written_without_its_year_and_in_lower_case(
    scoring: ModuleType, data: Path
) -> None:
    _, (dialogue,) = scoring.read_data(data, scoring.FORMS["lower case"])
    assert dialogue.turns[0].text == "Have you seen heat ?"


def test_a_score_of_nothing_is_zero(scoring: ModuleType) -> None:
    score = scoring.Score.of([], [])
    assert (score.precision, score.recall, score.f1) == (0, 0, 0)
    assert scoring.Score(1, 2, 3) + scoring.Score(1, 1, 1) == scoring.Score(2, 3, 4)
