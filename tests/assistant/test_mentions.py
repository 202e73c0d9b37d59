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
        ("star wars", [("star wars", "8")]),
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


TITLES = MentionFinder(
    Catalogue(
        [
            Item("1", "Rocky (1976)"),
            Item("2", "Rocky II (1979)"),
            Item("3", "The Matrix (1999)"),
            Item("4", "Léon: The Professional (1994)"),
            Item("5", "1917 (2019)"),
            Item("6", "\u5343\u3068\u5343\u5c0b\u306e\u795e\u96a0\u3057 (2001)"),
            Item("7", "Good (2008)"),
            Item("8", "Awesome (2006)"),
            Item("9", "Kalifornia (1993)"),
            Item("10", "Talk to Me (2007)"),
            Item("11", "All the Way (2016)"),
            Item("12", "Schindler's List (1993)"),
            Item("13", "Avengers, The (2012)"),
            Item("14", "Frozen (2013)"),
        ]
    )
)


@pytest.mark.parametrize(
    ("text", "item", "certain"),
    [
        ("I loved Rocky", "1", True),
        ("I loved rocky", "1", False),
        ("Rocky is the best", "1", True),
        ("rocky was great", "1", False),
        ("i loved rocky (1976)", "1", True),
        ("I LOVED ROCKY", "1", False),
        ("I saw Rocky 2", "2", True),
        ("I loved Rocky's", "1", True),
        ("I loved Matrix, The (1999)", "3", True),
        ("I loved Matrix, The", "3", True),
        ("I loved the Matrix", "3", True),
        ("I loved The Avengers", "13", True),
        ("I love Leon", "4", False),
        ("I watched 1917 and loved it", "5", False),
        ("\u5343\u3068\u5343\u5c0b\u306e\u795e\u96a0\u3057 is great", "6", True),
        ("I loved talk to me", "10", False),
        ("Schindler's List was sad", "12", True),
        ("i saw schindlers list", "12", False),
        ("I loved Schindlers Lst", "12", False),
        ("I loved Frozen", "14", True),
    ],
)
def test_how_certain_a_title_is(text: str, item: str, certain: bool) -> None:
    (mention,) = TITLES.find(text)
    assert ([one.id for one in mention.meant], mention.certain) == ([item], certain)


@pytest.mark.parametrize(
    "text",
    [
        "Awesome! Thanks.",
        "That is so good. Good idea!",
        "I LOVE THIS MOVIE, IT IS SO GOOD",
        "please talk to me",
        "I went all the way to the cinema",
        "in 1917 it was cold",
        "I have 1917 films",
        "a frozen lake",
    ],
)
def test_common_words_name_nothing(text: str) -> None:
    assert TITLES.find(text) == ()


def test_a_word_that_was_refused_as_a_title_is_not_respelt_for_certain() -> None:
    for text in ("Frozen pizza for dinner", "I live in California"):
        assert not any(mention.certain for mention in TITLES.find(text))
    assert [mention.meant[0].id for mention in TITLES.find("I saw Rocky 2 times")] == ["1"]
