"""The leak audit: no prompt may hold the answer it is asked for.

Every score is worthless where it fails, so a finding ends the run. The audit reads the text that
the model will read, not the objects from which it was written.
"""

import re
from collections.abc import Collection

from pkgllm.corpora.catalogue import Catalogue
from pkgllm.errors import LeakError
from pkgllm.graph.vocabulary import item_iri
from pkgllm.preferences.prompts import Prompt

_YEAR = re.compile(r"\s*\(\d{4}\)\s*(?:\[[^\]]*\])?$")


def _bare_title(name: str) -> str:
    """Return a name without its year.

    Example:
        >>> _bare_title("The Last Harbour (1995)")
        'The Last Harbour'
    """
    return _YEAR.sub("", name)


def _stands_in(needle: str, text: str) -> bool:
    """Tell whether a phrase stands in a text as whole words, whatever its case."""
    pattern = rf"(?<!\w){re.escape(needle)}(?!\w)"
    return re.search(pattern, text, re.IGNORECASE) is not None


def audit_prompt(
    prompt: Prompt, held_out: Collection[str], catalogue: Catalogue, *, place: str
) -> None:
    """Fail if a held-out item stands in a prompt.

    Looks for the item among those that the prompt was written from, and, in the text with those
    other items' names taken out (so that "Step Up (2006)" is no trace of "Up (2006)"), for the
    item's name, its title without the year where that is at least two words (a single common
    word proves nothing), its id and its IRI.

    Args:
        prompt: What the model will read.
        held_out: Ids of the items that are asked for.
        catalogue: Names the items.
        place: Where the prompt belongs, for the message, for example ``test prompt``.

    Raises:
        LeakError: Naming the client, the item and the place.
    """
    held_out = frozenset(held_out)
    if leaked := sorted(held_out & prompt.tails):
        _fail(prompt, catalogue[leaked[0]].name, place, "a fact of the prompt's graph")
    text = " ".join(prompt.facts_text.split())
    visible = sorted((catalogue[i].name for i in prompt.tails if i in catalogue), key=len)
    for name in reversed(visible):
        text = text.replace(name, "\N{SYMBOL FOR DELETE}")
    for item in sorted(held_out):
        name = catalogue[item].name
        title = _bare_title(name)
        traces = {"its name": name, "its IRI": item_iri(item), "its id": item}
        if len(title.split()) > 1:
            traces["its title"] = title
        for what, trace in traces.items():
            if _stands_in(trace, text):
                _fail(prompt, name, place, what)


def _fail(prompt: Prompt, name: str, place: str, what: str) -> None:
    raise LeakError(
        f"leak audit: the {place} of client {prompt.client!r} holds the held-out item {name!r} "
        f"({what}); a prompt must be written from facts strictly earlier than the answers"
    )
