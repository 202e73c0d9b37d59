"""What is printed and written: tables, paragraphs, figures and notes, before any layout.

A function of this package turns a result into a :class:`Document`; the modules ``to_terminal``,
``to_markdown``, ``to_json``, ``to_html`` and ``to_latex`` turn a document into text.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias


@dataclass(frozen=True, slots=True)
class Cell:
    """A text and, where it writes a number, that number with its interval."""

    text: str
    """Parts that may stand below each other are separated by a line end."""
    value: float | None = None
    low: float | None = None
    high: float | None = None
    details: tuple[str, ...] = ()
    """Lines below the text."""
    alarm: bool = False
    """Whether the text reports a fault."""

    @property
    def interval(self) -> str:
        """``[low, high]``, or nothing."""
        ends = self.ends
        return f"[{ends[0]}, {ends[1]}]" if ends else ""

    @property
    def ends(self) -> tuple[str, str] | None:
        """Both ends of the interval in words."""
        if self.low is None or self.high is None:
            return None
        return decimal(self.low), decimal(self.high)


@dataclass(frozen=True, slots=True)
class Column:
    """A heading, and how its cells stand in a terminal."""

    heading: str
    right: bool = False
    """Whether cells are aligned to the right."""
    wrap: bool = False
    """Whether cells that are too long go on in the next line."""


Row: TypeAlias = tuple[Cell, ...]


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of cells under headings."""

    title: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    compact: bool = False
    """Whether a terminal shows values without intervals and headings a word per line."""
    place: Literal["everywhere", "terminal", "page"] = "everywhere"
    """A terminal is narrower than a page, and shows some results in another form."""


@dataclass(frozen=True, slots=True)
class Paragraph:
    """Lines of text, and points below them."""

    text: str
    points: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Figure:
    """An image beside the document; a terminal shows none."""

    caption: str
    file: str


@dataclass(frozen=True, slots=True)
class Document:
    """Blocks in order under a title, then notes; a document among the blocks is a section."""

    title: str
    blocks: "tuple[Table | Paragraph | Figure | Document, ...]"
    notes: tuple[str, ...] = ()
    """What a reader must know beside the numbers."""


def columns(first: str, *others: str) -> tuple[Column, ...]:
    """Return columns of which only the first, which names the rows, may be wrapped."""
    return (Column(first, wrap=True), *map(Column, others))


def texts(*written: str) -> Row:
    """Return cells without numbers."""
    return tuple(map(Cell, written))


def number(value: float | None, sign: Literal["", "+"] = "") -> Cell:
    """Return a number with four decimals; ``n/a`` where there is none."""
    return Cell("n/a") if value is None else Cell(decimal(value, sign), value)


def estimate(measured: Mapping[str, Any], key: str) -> Cell:
    """Return the number under a key with its interval; a ``difference`` always has a sign."""
    cell = number(measured[key], "+" if key == "difference" else "")
    low, high = measured["low"], measured["high"]
    return cell if low is None or high is None else Cell(cell.text, cell.value, low, high)


def decimal(value: float, sign: Literal["", "+"] = "") -> str:
    """Write four decimals, without a zero before the point.

    Example:
        >>> decimal(0.0943), decimal(1.0), decimal(-0.00001), decimal(0.5, "+")
        ('.0943', '1.0000', '.0000', '+.5000')
    """
    # Adding 0.0 removes the sign of a negative zero.
    text = f"{round(value, 4) + 0.0:{sign}.4f}"
    return text.replace("0.", ".", 1) if abs(value) < 0.99995 else text


def plural(count: int, noun: str, several: str = "") -> str:
    """Return a number of things in words.

    Example:
        >>> plural(1, "rule"), plural(2000, "rule"), plural(2, "query", "queries")
        ('1 rule', '2,000 rules', '2 queries')
    """
    return f"{count:,} {noun if count == 1 else several or noun + 's'}"


def counted(part: Mapping[str, Any]) -> str:
    """Return how many clients and queries numbers are taken over."""
    queries = plural(part["queries"], "query", "queries")
    return f"{plural(part['clients'], 'client')}, {queries}"
