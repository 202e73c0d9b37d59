from itertools import pairwise

import pytest

from pkgllm.assistant.mentions import MentionFinder
from pkgllm.corpora.catalogue import Catalogue, Item

FORD = {"star": ("Harrison Ford",), "director": ("Steven Spielberg",)}
FINDER = MentionFinder(
    Catalogue(
        [
            Item("1", "Raiders of the Lost Ark (1981)", FORD),
            Item("2", "Heat (1995)"),
            Item("3", "Get Out (2017)"),
            Item("4", "It (1990)"),
            Item("5", "It (2017)"),
            Item("6", "The Dark Knight (2008)"),
            Item("7", "Good Will Hunting (1997)", {"star": ("Prince",)}),
            Item("8", "Star Wars"),
            Item("9", "Mr. Deeds (2002)"),
        ]
    )
)


def actual(text: str) -> list[tuple[str, str]]:
    """The stretches that name something, each with what may be meant."""
    return [
        (text[mention.start : mention.end], "/".join(item.id for item in mention.meant))
        for mention in FINDER.find(text)
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("I saw Heat (1995) twice", [("Heat (1995)", "2")]),
        ("heat 1995, get out (2017)", [("heat 1995", "2"), ("get out (2017)", "3")]),
        ("I love Heat!", [("Heat", "2")]),
        ("in this heat we should get out of it", []),
        ("Heat is bad for ice.", [("Heat", "2")]),
        ("Heat was boring.", [("Heat", "2")]),
        ("It was boring.", []),
        ('Seen "heat"?', [("heat", "2")]),
        ("have you seen the dark knight", [("the dark knight", "6")]),
        ("Dark Knight was fine", [("Dark Knight", "6")]),
        ("I saw It", [("It", "4/5")]),
        ("I saw It (2017)", [("It (2017)", "5")]),
        ("star wars", []),
        ("I like Star Wars and Get Out", [("Star Wars", "8"), ("Get Out", "3")]),
        ("harrison ford is great", [("harrison ford", "Harrison Ford")]),
        ("I like Prince", []),
        ("Harison Ford rules", [("Harison Ford", "Harrison Ford")]),
        ("the best is Raiders of the Lost Arc", [("Raiders of the Lost Arc", "1")]),
        ("Loved Good Wil Hunting", [("Good Wil Hunting", "7")]),
        ("", []),
        ("?!", []),
    ],
)
def test_what_a_text_speaks_of(text: str, expected: list[tuple[str, str]]) -> None:
    assert actual(text) == expected


def test_the_longest_name_is_taken_and_none_overlap() -> None:
    finder = MentionFinder(Catalogue([Item("1", "Alien (1979)"), Item("2", "Alien Nation (1988)")]))
    text = "I saw Alien Nation and then Alien"
    assert [m.meant[0].id for m in finder.find(text)] == ["2", "1"]
    ends = [(m.start, m.end) for m in finder.find(text)]
    assert all(end <= start for (_, end), (start, _) in pairwise(ends))
