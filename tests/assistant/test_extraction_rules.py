import pytest

from pkgllm.assistant.extraction import Extraction, Speaker, Turn
from pkgllm.assistant.extraction_rules import RuleExtractor
from pkgllm.assistant.mentions import MentionFinder
from pkgllm.corpora.catalogue import Catalogue, Item

EXTRACTOR = RuleExtractor(
    MentionFinder(
        Catalogue(
            [
                Item("1", "Raiders of the Lost Ark (1981)", {"star": ("Harrison Ford",)}),
                Item("2", "Heat (1995)"),
                Item("3", "Alien (1979)"),
                Item("4", "The Good Son (1993)"),
                Item("5", "It (1990)"),
                Item("6", "It (2017)"),
            ]
        )
    )
)


def extracted(*said: tuple[Speaker, str]) -> Extraction:
    return EXTRACTOR.extract([Turn(speaker, text) for speaker, text in said])


def facts(*said: tuple[Speaker, str]) -> dict[str, str]:
    return {verdict.tail: verdict.relation for verdict in extracted(*said).verdicts}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("I loved Heat (1995)", {"2": "liked"}),
        ("Heat (1995) was boring", {"2": "disliked"}),
        ("I didn't like Heat (1995)", {"2": "disliked"}),
        ("I didn\u2019t really enjoy Heat (1995).", {"2": "disliked"}),
        ("I'm not a big fan of Heat (1995)", {"2": "disliked"}),
        ("Heat (1995) was not bad at all", {"2": "seen"}),
        ("I watched Heat (1995) last night", {"2": "seen"}),
        ("I haven't seen Heat (1995) yet", {"2": "unseen"}),
        ("never saw Heat (1995)", {"2": "unseen"}),
        ("I saw The Good Son (1993)", {"4": "seen"}),
        ("I loved Heat (1995) but hated Alien (1979)", {"2": "liked", "3": "disliked"}),
        ("Have you seen Heat (1995)?", {}),
        ("I would like to see Heat (1995)", {}),
        ("I like Heat (1995), Alien (1979)", {"2": "liked", "3": "liked"}),
        ("I watched Heat (1995). It was terrible.", {"2": "disliked"}),
        ("I saw Heat. I love my new car and the long drives to work.", {"2": "seen"}),
        ("", {}),
    ],
)
def test_what_one_message_says(text: str, expected: dict[str, str]) -> None:
    assert facts(("person", text)) == expected


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("Yes!", {"2": "seen"}),
        ("No, not yet", {"2": "unseen"}),
        ("I have not seen that one", {"2": "unseen"}),
        ("Yes, loved it", {"2": "liked"}),
        ("Yeah, I hated it", {"2": "disliked"}),
        ("No, but it sounds great", {"2": "unseen"}),
        ("What else is there?", {}),
        ("I have not.", {"2": "unseen"}),
        ("Oh, okay.", {}),
        ("I don't think I've ever watched it", {"2": "unseen"}),
    ],
)
def test_an_answer_is_about_what_the_partner_named(answer: str, expected: dict[str, str]) -> None:
    asked: tuple[Speaker, str] = ("partner", "Have you seen Heat (1995)?")
    assert facts(asked, ("person", answer)) == expected


def test_of_several_the_answer_points_at_one_or_all() -> None:
    offer: tuple[Speaker, str] = ("partner", "How about Heat (1995)? Or Alien (1979)?")
    assert facts(offer, ("person", "The first one was boring")) == {"2": "disliked"}
    assert facts(offer, ("person", "I loved both")) == {"2": "liked", "3": "liked"}
    assert facts(offer, ("person", "That was great")) == {}
    (question,) = extracted(offer, ("person", "That was great")).questions
    assert {item.id for item in question.items} == {"2", "3"}
    assert facts(offer, ("person", "The third one was boring")) == {}


def test_the_partners_opinion_is_not_the_persons() -> None:
    assert facts(("partner", "I loved Heat (1995). It was great.")) == {}
    assert facts(("partner", "I loved Heat (1995)."), ("person", "Bye, thanks for the chat")) == {}


def test_what_is_said_later_counts_more() -> None:
    said: list[tuple[Speaker, str]] = [("person", "I liked Heat (1995)")]
    assert facts(*said, ("person", "On second thought Heat (1995) was boring")) == {"2": "disliked"}


@pytest.mark.parametrize(
    ("text", "direction"),
    [("I enjoy Harrison Ford", "prefer"), ("I can't stand harrison ford", "avoid")],
)
def test_an_opinion_of_a_person_is_a_wish(text: str, direction: str) -> None:
    (wish,) = extracted(("person", text)).wishes
    assert (wish.direction, wish.scope, wish.value) == (direction, "person", "Harrison Ford")
    assert extracted(("person", text)).verdicts == ()


def test_a_title_of_several_films_is_asked_about_until_one_was_named() -> None:
    (question,) = extracted(("person", "I loved It")).questions
    assert [item.id for item in question.items] == ["5", "6"]
    assert question.opinion.relation == "liked"
    assert facts(("partner", "Have you seen It (2017)?"), ("person", "I loved It (2017)")) == {
        "6": "liked"
    }
