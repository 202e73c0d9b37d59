"""The leak audit: no prompt may hold the answer it is asked for.

A leak makes every score worthless, so it ends the run. The audit reads the text that the model
will read, not the objects from which it was written.
"""

import re
import unicodedata
from collections.abc import Collection

from pkgllm.corpora.catalogue import Catalogue, bare_title
from pkgllm.errors import LeakError
from pkgllm.graph.vocabulary import ITEMS
from pkgllm.prompts.prompts import Prompt


def _plain(text: str) -> str:
    """Return a text as one reads it: without case, forms of Unicode and marks that do not show.

    White space is folded, and JSON's escapes of quotes are undone.
    """
    unescaped = text.replace('\\"', '"').replace("\\\\", "\\")
    if not unescaped.isascii():
        unescaped = unicodedata.normalize("NFKC", unescaped.casefold())
        unescaped = "".join(c for c in unescaped if unicodedata.category(c) != "Cf")
    return " ".join(unescaped.casefold().split())


def _stands_in(needle: str, text: str, visible: Collection[str]) -> bool:
    """Return whether a text holds a phrase as whole words outside the visible names; all plain."""
    if needle not in text:  # nearly always, and far cheaper than a pattern
        return False
    excused = [
        match.span()
        for name in visible
        if needle in name
        for match in re.finditer(re.escape(name), text)
    ]
    return any(
        all(match.start() < first or last < match.end() for first, last in excused)
        for match in re.finditer(rf"(?<!\w){re.escape(needle)}(?!\w)", text)
    )


def audit_prompt(
    prompt: Prompt, held_out: Collection[str], catalogue: Catalogue, *, place: str
) -> None:
    """Fail if a held-out item stands in a prompt.

    The item must not be among those that the prompt was written from. The whole text is searched
    for the item's name, for its title without the year where that is at least two words (a single
    common word proves nothing) and for its IRI; the part that was written from the graph for its
    id. A match inside the name of a visible item does not count: "Up (2006)" in "Step Up (2006)".

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
    text, facts_text = _plain(prompt.text), _plain(prompt.facts_text)
    visible = [_plain(catalogue[item].name) for item in prompt.tails if item in catalogue]
    for item in sorted(held_out):
        name = catalogue[item].name
        title = bare_title(name)
        traces = [("its name", name, text), ("its IRI", ITEMS.iri(item), text)]
        if len(title.split()) > 1:
            traces.append(("its title", title, text))
        traces.append(("its id", item, facts_text))
        for what, trace, where in traces:
            if _stands_in(_plain(trace), where, visible):
                _fail(prompt, name, place, what)


def _fail(prompt: Prompt, name: str, place: str, what: str) -> None:
    raise LeakError(
        f"leak audit: the {place} of client {prompt.client!r} holds the held-out item {name!r} "
        f"({what}); a prompt must be written from facts strictly earlier than the answers"
    )
