"""What is written to a graph after everyday sentences: nothing opposite, hardly anything wrong."""

from helpers.everyday_sentences import FAMILIES
from helpers.sentence_cases import CATALOGUE, cases, score
from pkgllm.assistant.extraction_rules import RuleExtractor
from pkgllm.assistant.mentions import MentionFinder

EXTRACTOR = RuleExtractor(MentionFinder(CATALOGUE))


def test_of_the_everyday_sentences_nothing_opposite_is_written_and_most_is_understood() -> None:
    result = score(EXTRACTOR, cases(FAMILIES))
    assert result.opposite == ()
    assert result.wrong_share <= 0.02, result.wrong
    assert result.recall >= 0.6, result.missed
