"""The forms in which people write a title."""

import re
from collections.abc import Iterator

from pkgllm.assistant.linking import letters, upright, without_article
from pkgllm.corpora.catalogue import bare_title

_SUBTITLE = re.compile(r"\s*(?::|\s[-\u2013\u2014]\s).*$")
_NUMERALS = {"ii": "2", "iii": "3", "iv": "4", "vi": "6", "vii": "7", "viii": "8", "ix": "9"}
_ARABIC = {arabic: roman for roman, arabic in _NUMERALS.items()} | {"5": "v"}
_PART = re.compile(r"^(?P<title>.+?) (?:part|episode|chapter|volume|vol) (?P<number>\w+)$")


def title_forms(name: str) -> Iterator[str]:
    """Yield the letters of the forms of a title that mean the same, the whole title first.

    Example:
        >>> list(title_forms("Matrix, The (1999)"))
        ['matrix the', 'the matrix', 'matrix']
        >>> list(title_forms("Rocky II (1979)"))
        ['rocky ii', 'rocky 2']
    """
    bare = bare_title(name)
    forms = list(dict.fromkeys((letters(bare), letters(upright(bare)))))
    yield from forms
    article = without_article(forms[-1])
    if article != forms[-1]:
        forms.append(article)
        yield article
    for form in tuple(forms):
        yield from _numbered_forms(form)


def inverted_forms(name: str) -> Iterator[str]:
    """Yield the letters of a title in the order of ``Matrix, The``.

    Example:
        >>> list(inverted_forms("The Matrix (1999)"))
        ['matrix the']
    """
    whole = letters(bare_title(name))
    plain = without_article(whole)
    if plain != whole:
        yield f"{plain} {whole[: len(whole) - len(plain)].strip()}"


def main_title(name: str) -> str | None:
    """Return the letters of a title without its subtitle, or None if it has none.

    Example:
        >>> main_title("L\u00e9on: The Professional (1994)"), main_title("Heat (1995)")
        ('leon', None)
    """
    bare = bare_title(name)
    main = _SUBTITLE.sub("", bare)
    return letters(main) if main and main != bare else None


def _numbered_forms(form: str) -> Iterator[str]:
    words = form.split()
    if len(words) < 2:
        return
    last = words[-1]
    swapped = _NUMERALS.get(last) or _ARABIC.get(last)
    if (match := _PART.match(form)) is not None:
        yield f"{match['title']} {match['number']}"
        if swapped:
            yield f"{match['title']} {swapped}"
    if swapped:
        yield " ".join((*words[:-1], swapped))
