import pytest

from pkgllm.assistant.clauses import units_of
from pkgllm.assistant.intents import Intent, intent_of
from pkgllm.assistant.tokens import sentences


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("help", "help"),
        ("What can you do?", "help"),
        ("why?", "why"),
        ("Why the second one?", "why"),
        ("why do you suggest that", "why"),
        ("why do people love boxing", "question"),
        ("show me something funny instead", "wish"),
        ("Any good comedies?", "wish"),
        ("I'm in the mood for a thriller", "wish"),
        ("is it any good", "question"),
        ("Do you like it?", "question"),
        ("thanks, you are great", "remark"),
        ("Great suggestions!", "remark"),
        ("Awesome!", "remark"),
        ("I loved it", "statement"),
        ("What a great movie!", "statement"),
        ("the second one is great", "statement"),
    ],
)
def test_what_a_sentence_is_for(text: str, expected: Intent) -> None:
    (sentence,) = sentences(text)
    assert intent_of(units_of(sentence), ends_with=sentence.ends_with) == expected
