"""What is written to a graph after everyday sentences: nothing opposite, hardly anything wrong."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.everyday_sentences import FAMILIES, LATER_FAMILIES
from helpers.sentence_cases import CATALOGUE, cases, score
from pkgllm.assistant.extraction import Turn
from pkgllm.assistant.extraction_rules import RuleExtractor
from pkgllm.assistant.lexicon import entry_at
from pkgllm.assistant.mentions import MentionFinder
from pkgllm.assistant.references import reference_at
from pkgllm.assistant.tokens import sentences

EXTRACTOR = RuleExtractor(MentionFinder(CATALOGUE))


def test_of_the_everyday_sentences_nothing_opposite_is_written_and_most_is_understood() -> None:
    result = score(EXTRACTOR, cases(FAMILIES | LATER_FAMILIES))
    assert result.num_sentences >= 300
    assert result.opposite == ()
    assert result.wrong_share <= 0.02, result.wrong
    assert result.recall >= 0.6, result.missed


def written(text: str) -> dict[str, str]:
    extraction = EXTRACTOR.extract([Turn("person", text)])
    return {verdict.name: verdict.relation for verdict in extraction.verdicts}


def is_unknown(word: str) -> bool:
    said = [token.text for sentence in sentences(word) for token in sentence.tokens]
    return all(
        entry_at(said, place)[0] is None and reference_at(said, place)[0] is None
        for place in range(len(said))
    )


unknown_words = st.from_regex(r"[b-hj-z][a-z]{3,8}", fullmatch=True).filter(is_unknown)


@given(st.lists(unknown_words, min_size=1, max_size=4))
def test_without_a_word_for_it_nothing_is_written(words: list[str]) -> None:
    text = " ".join(words)
    assert written(f"I {text} Rocky (1976)") == {}
    assert written(f"Rocky (1976) was {text}") == {}


@given(unknown_words, st.sampled_from(["loved", "hated", "enjoyed", "saw"]))
def test_an_unknown_subject_or_object_is_not_taken_for_the_persons(word: str, verb: str) -> None:
    assert written(f"{word} {verb} Rocky (1976)") == {}
    assert written(f"I {verb} the {word} of Rocky (1976)") == {}
    assert written(f"I {verb} Rocky {word}") == {}


@pytest.mark.parametrize("verb", ["loved", "hated", "saw", "have not seen"])
@pytest.mark.parametrize(
    "frame", ["Did I say I {} Rocky (1976)?", "If I {} Rocky (1976) I would say so"]
)
def test_a_question_and_a_condition_state_nothing(verb: str, frame: str) -> None:
    assert written(frame.format(verb)) == {}
