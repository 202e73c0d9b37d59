from dataclasses import dataclass
from typing import Annotated, Literal

import pytest
from pydantic import ValidationError

from pkgllm.bounds import Positive, PositiveFloat
from pkgllm.config.choices import ChosenFrom, Settings, documentation, keys, names, parts
from pkgllm.config.section import Section
from pkgllm.registry import Choice, Registry


@dataclass(frozen=True, slots=True, kw_only=True)
class Bristle:
    """What touches the canvas."""

    width: PositiveFloat = 1.0
    """Millimetres."""

    def __post_init__(self) -> None:
        """Check what bounds cannot say."""
        if self.width == 13:
            raise ValueError("width must not be 13")


@dataclass(frozen=True, slots=True, kw_only=True)
class Brush(Choice):
    """Paints with a brush."""

    name: Literal["brush"] = "brush"
    strokes: Positive
    """How often."""
    colours: tuple[str, ...] = ("red",)
    """In this order."""
    bristle: Bristle = Bristle()
    spare: Bristle | None = None


TOOLS: Registry[Choice] = Registry("tool", "pkgllm.no_such_group", {"brush": f"{__name__}:Brush"})


class Studio(Section):
    """A tree with a choice and a plain dataclass."""

    tool: Annotated[Choice, ChosenFrom(TOOLS)]
    bristle: Annotated[Bristle, Settings()] = Bristle()


def _errors(**tree: object) -> list[tuple[tuple[int | str, ...], str]]:
    with pytest.raises(ValidationError) as caught:
        Studio.model_validate(tree, strict=True)
    return [(line["loc"], line["type"]) for line in caught.value.errors()]


def test_a_choice_is_built_from_what_a_configuration_gives() -> None:
    tool = {"name": "brush", "strokes": 3, "bristle": {"width": 2.5}, "spare": {}}
    studio = Studio.model_validate({"tool": tool}, strict=True)
    assert studio.tool == Brush(strokes=3, bristle=Bristle(width=2.5), spare=Bristle())
    assert hash(studio) == hash(Studio.model_validate({"tool": tool}, strict=True))


def test_a_tree_with_choices_is_written_and_read_back_equal() -> None:
    studio = Studio(tool=Brush(strokes=3, colours=("red", "blue")), bristle=Bristle(width=4))
    written = studio.model_dump(mode="json")
    assert written["tool"] == {
        "name": "brush",
        "strokes": 3,
        "colours": ["red", "blue"],
        "bristle": {"width": 1.0},
        "spare": None,
    }
    read_back = {**written, "tool": {**written["tool"], "colours": ("red", "blue")}}
    assert Studio.model_validate(read_back, strict=True) == studio


@pytest.mark.parametrize(
    ("tool", "location", "kind"),
    [
        ({"name": "brush"}, ("tool", "brush", "strokes"), "missing"),
        ({"name": "brush", "strokes": 0}, ("tool", "brush", "strokes"), "greater_than_equal"),
        ({"name": "brush", "strokes": True}, ("tool", "brush", "strokes"), "int_type"),
        ({"name": "brush", "strokes": "3"}, ("tool", "brush", "strokes"), "int_type"),
        (
            {"name": "brush", "strokes": 1, "hue": 1},
            ("tool", "brush", "hue"),
            "extra_forbidden",
        ),
        (
            {"name": "brush", "strokes": 1, "bristle": {"width": float("inf")}},
            ("tool", "brush", "bristle", "width"),
            "finite_number",
        ),
        (
            {"name": "brush", "strokes": 1, "bristle": {"width": 13.0}},
            ("tool", "brush", "bristle"),
            "value_error",
        ),
        ({"name": "brusch", "strokes": 1}, ("tool",), "union_tag_invalid"),
        ({"strokes": 1}, ("tool",), "union_tag_invalid"),
        ("brush", ("tool",), "model_type"),
    ],
)
def test_an_error_says_where_and_what(tool: object, location: object, kind: str) -> None:
    assert _errors(tool=tool) == [(location, kind)]


def test_every_error_of_a_choice_is_reported_at_once() -> None:
    tool = {"name": "brush", "strokes": 0, "colours": 3, "bristle": {"width": -1.0}}
    assert [location[-1] for location, _ in _errors(tool=tool, bristle=7)] == [
        "strokes",
        "colours",
        "width",
        "bristle",
    ]


def test_what_a_choice_takes_is_known_from_its_file() -> None:
    assert list(keys(Brush)) == ["name", "strokes", "colours", "bristle", "spare"]
    assert documentation(Brush, "colours") == "In this order."
    assert documentation(Brush, "bristle") == ""
    field = Studio.model_fields["tool"]
    assert (names(field), parts(field)) == (("brush",), (Brush,))
    assert parts(keys(Brush)["spare"]) == (Bristle,)
    assert parts(keys(Brush)["strokes"]) == ()
