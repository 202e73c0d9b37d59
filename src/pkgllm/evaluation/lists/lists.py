"""From a model's free text to a list of catalogue items.

An answer names one title per line. A line is linked to an item by its surface form, ``Title
(Year)``, and by nothing fuzzier, so that no sequel is taken for the film that was meant.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from pkgllm.corpora.catalogue import Catalogue, bare_title

_MARK = re.compile(r"^(?:\*\s+|[-+•‣·\N{EN DASH}\N{EM DASH}]\s*|\(?\d{1,3}[.):]\s*)")
_CLOSING_BY_OPENING = {
    '"': '"',
    "'": "'",
    "“": "”",
    "\N{LEFT SINGLE QUOTATION MARK}": "\N{RIGHT SINGLE QUOTATION MARK}",
    "«": "»",
    "*": "*",
    "_": "_",
    "`": "`",
}
_QUOTES = "".join({*_CLOSING_BY_OPENING, *_CLOSING_BY_OPENING.values(), " "})


def answer_lines(text: str) -> tuple[str, ...]:
    r"""Return the lines of an answer that hold a letter or a digit, stripped of outer space.

    Example:
        >>> answer_lines("1. The Last Harbour (1995)\n---\n\n  Up\n")
        ('1. The Last Harbour (1995)', 'Up')
    """
    return tuple(
        line.strip() for line in text.splitlines() if any(letter.isalnum() for letter in line)
    )


def without_mark(line: str) -> str:
    """Return a line without the bullet or the number that begins it.

    Example:
        >>> without_mark("- Up (2009)"), without_mark("12) Up (2009)"), without_mark("9 (2009)")
        ('Up (2009)', 'Up (2009)', '9 (2009)')
    """
    return _MARK.sub("", line)


def _readings(line: str) -> Iterator[str]:
    """Yield a line as it stands, then without its marks and quotes, one layer at a time.

    What stands comes first, because a title may begin with a number or a quote.
    """
    while True:
        yield line
        bare = without_mark(line)
        if bare == line:
            bare = _without_quotes(line)
        if bare == line:
            return
        line = bare


def _without_quotes(line: str) -> str:
    """Return a line without one pair of quotes around it, or else without any at its ends."""
    if len(line) > 1 and _CLOSING_BY_OPENING.get(line[0]) == line[-1]:
        return line[1:-1].strip()
    return line.strip(_QUOTES)


def _normal(text: str) -> str:
    """Return a text without case, in Unicode's compatibility form, with white space folded."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(unicodedata.normalize("NFKC", folded).split())


def _unambiguous(forms: Iterable[tuple[str, str]]) -> Mapping[str, str]:
    pairs = tuple(forms)
    count_by_form = Counter(form for form, _ in pairs)
    return {form: item for form, item in pairs if count_by_form[form] == 1}


class TitleLinker:
    """Finds the item that a line names.

    A line is tried as it stands, then without bullets, numbering and quotes. Each reading links, in
    this order, by

    1. the exact surface form;
    2. the surface form in Unicode's NFKC, without case, with white space folded, where only one
       item has it;
    3. the same without the year, where the line has none and only one item of the catalogue has
       that title.

    Anything else, a wrong year, a further word or a misspelling, links to nothing.

    Example:
        >>> from pkgllm.corpora.catalogue import Item
        >>> names = ("Up (2009)", "It (1990)", "It (2017)")
        >>> linker = TitleLinker(Catalogue(Item(str(n), name) for n, name in enumerate(names, 1)))
        >>> [linker.link(line) for line in ("- UP  (2009)", "up", "It (1990)", "It", "Up (2010)")]
        ['1', '1', '2', None, None]
    """

    def __init__(self, catalogue: Catalogue) -> None:
        self._by_name = {item.name: item.id for item in catalogue}
        self._by_form = _unambiguous((_normal(item.name), item.id) for item in catalogue)
        self._by_title = _unambiguous(
            (bare_title(_normal(item.name)), item.id) for item in catalogue
        )

    def link(self, line: str) -> str | None:
        """Return the id of the item that a line names, or None."""
        for reading in _readings(line.strip()):
            form = _normal(reading)
            item = self._by_name.get(reading) or self._by_form.get(form) or self._by_title.get(form)
            if item is not None:
                return item
        return None


@dataclass(frozen=True, slots=True)
class GeneratedList:
    """What an answer was read as, step by step."""

    num_lines: int
    """Lines of the answer, whether or not they name an item."""
    linked: tuple[str, ...]
    """The item of each line that names one, repeated as often as the lines repeat it."""
    novel: tuple[str, ...]
    """Those of them that the visible graph does not hold."""
    items: tuple[str, ...]
    """The list that is scored: the novel ones, each once, the first K."""

    @property
    def answered(self) -> bool:
        """True where there is any line."""
        return self.num_lines > 0


def list_of_items(
    linked: Sequence[str], *, visible: Collection[str], k: int, num_lines: int | None = None
) -> GeneratedList:
    """Make a list of the items that an answer names.

    Args:
        linked: Ids, best first.
        visible: Items of the client's visible graph; what is known is no recommendation.
        k: Longest list.
        num_lines: Lines of the answer; the number of linked items where every line names one.

    Raises:
        ValueError: If ``k`` is not positive, or there are fewer lines than linked items.

    Example:
        >>> list_of_items(["7", "3", "7", "9"], visible={"3"}, k=2).items
        ('7', '9')
    """
    num_lines = len(linked) if num_lines is None else num_lines
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    if num_lines < len(linked):
        raise ValueError(
            f"an answer must have a line for each linked item, got {num_lines} lines and "
            f"{len(linked)} items"
        )
    novel = tuple(item for item in linked if item not in visible)
    return GeneratedList(num_lines, tuple(linked), novel, tuple(dict.fromkeys(novel))[:k])


def read_list(text: str, linker: TitleLinker, *, visible: Collection[str], k: int) -> GeneratedList:
    """Read an answer, one title per line.

    Raises:
        ValueError: If ``k`` is not positive.
    """
    lines = answer_lines(text)
    linked = [item for line in lines if (item := linker.link(line)) is not None]
    return list_of_items(linked, visible=visible, k=k, num_lines=len(lines))
