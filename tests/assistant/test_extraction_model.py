from collections.abc import Sequence

import pytest
import torch

from pkgllm.assistant.extraction import Turn
from pkgllm.assistant.extraction_model import RELATIONS_SCORED, Margins, ModelExtractor, Thresholds
from pkgllm.assistant.mentions import MentionFinder
from pkgllm.corpora.catalogue import Catalogue, Item
from pkgllm.lm.base_model import BaseModel

FINDER = MentionFinder(Catalogue([Item("1", "Heat (1995)"), Item("2", "Alien (1979)")]))
TURNS = (Turn("partner", "Have you seen Heat (1995)?"), Turn("person", "I loved Alien (1979)"))


def make(base: BaseModel, *, max_positions: int | None = None) -> ModelExtractor:
    return ModelExtractor(
        FINDER,
        base.model,
        base.tokenizer,
        max_positions=max_positions or base.max_positions,
    )


def log_probability(base: BaseModel, prompt: str, line: str) -> float:
    """By the model's own forward pass."""

    def ids(text: str) -> Sequence[int]:
        actual: list[int] = base.tokenizer(text, add_special_tokens=False)["input_ids"]
        return actual

    before, after = ids(prompt), [*ids(line), *ids("\n")]
    with torch.no_grad():
        logits = base.model(torch.tensor([[*before, *after]])).logits[0].double()
    steps = logits.log_softmax(-1)[len(before) - 1 : -1]
    return float(steps[torch.arange(len(after)), torch.tensor(after)].sum())


def test_margins_are_differences_of_calibrated_log_probabilities(tiny_base: BaseModel) -> None:
    told = "Assistant: Have you seen Heat (1995)?\nUser: I loved Alien (1979)\n"
    for item, margins in make(tiny_base).margins(TURNS):
        liked, disliked, seen, unseen = (
            log_probability(tiny_base, told, f"(user, {relation}, {item.name})")
            - log_probability(tiny_base, "\n", f"(user, {relation}, {item.name})")
            for relation in RELATIONS_SCORED
        )
        assert margins.liked == pytest.approx(liked - disliked, abs=1e-3)
        assert margins.verdict == pytest.approx(max(liked, disliked) - max(seen, unseen), abs=1e-3)
        assert margins.seen == pytest.approx(max(liked, disliked, seen) - unseen, abs=1e-3)


def test_every_named_item_gets_an_opinion_by_the_thresholds(tiny_base: BaseModel) -> None:
    opinions = list(make(tiny_base).opinions(TURNS))
    assert [item.id for item, _ in opinions] == ["1", "2"]
    thresholds = Thresholds()
    for (_, opinion), (_, margins) in zip(opinions, make(tiny_base).margins(TURNS), strict=True):
        assert opinion == thresholds.opinion(margins)


def test_thresholds_decide_as_stated() -> None:
    margins = Margins(verdict=1.0, liked=-0.5, seen=0.2)
    assert Thresholds().opinion(margins).relation == "disliked"
    assert Thresholds(liked=-1).opinion(margins).relation == "liked"
    assert Thresholds(verdict=2).opinion(margins).relation == "seen"
    assert Thresholds(verdict=2, seen=0.3).opinion(margins).relation == "unseen"


def test_a_model_writes_nothing_and_asks_all(tiny_base: BaseModel) -> None:
    extraction = make(tiny_base).extract(TURNS)
    assert extraction.opinions == ()
    asked = [(question.items[0], question.opinion) for question in extraction.questions]
    assert asked == list(make(tiny_base).opinions(TURNS))
    assert make(tiny_base).extract([Turn("person", "Hello there")]).questions == ()


def test_of_a_conversation_that_is_too_long_the_end_is_read(tiny_base: BaseModel) -> None:
    long = [Turn("person", "blah " * 500), *TURNS]
    room = make(tiny_base, max_positions=128)
    assert len(room.extract(long).questions) == 2
