"""When two entries name one item, and a corpus in which such entries are one.

Two names are the same where their letters and digits are, whatever the case, the punctuation and
the form of Unicode (NFKC), and their years are equal; a name without a year is that of a year if no
other year has the title. Public facts with one value of ``same_as`` make two entries one as well.
Items of different classes are never the same.

Everything that must know whether an item is another one asks here: which items are candidates, what
a prompt may not hold, what is recommended, and what an edit is about.
"""

import re
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace

from pkgllm.corpora.catalogue import Catalogue, Item, bare_title, year_of
from pkgllm.corpora.clients import Corpus
from pkgllm.graph.personal_graph import Fact, PersonalGraph, Relation

SAME_AS = "same_as"
"""The relation of public facts whose values name the item elsewhere."""

STRENGTH: Mapping[Relation, int] = {
    "liked": 2,
    "disliked": 2,
    "seen": 1,
    "unseen": 1,
    "suggested": 0,
}
"""A stronger kind of fact about an item replaces a weaker one."""

_ENDS_IN_A_YEAR = re.compile(r"(?P<title>.*\w) (?P<year>18[89]\d|19\d\d|20\d\d)")
_ARTICLE = re.compile(r"(?P<rest>.*\S), (?P<article>the|a|an)", re.IGNORECASE)


def normal_form(text: str) -> str:
    r"""Return the letters, marks and digits of a text, with a blank for anything between them.

    Example:
        >>> normal_form("Ame\u0301lie\u200b  - LE  FILM!") == normal_form("amélie le film")
        True
        >>> normal_form("Face/Off"), normal_form("千と千尋")
        ('face off', '千と千尋')
    """
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    kept = (_plain(character) for character in folded)
    return " ".join("".join(kept).split()) or folded


def _plain(character: str) -> str:
    if character in "'`\N{RIGHT SINGLE QUOTATION MARK}":
        return ""
    # Format characters, such as zero-width marks, do not show.
    kind = unicodedata.category(character)
    return character if kind[0] in "LMN" else "" if kind == "Cf" else " "


def readings(name: str) -> tuple[tuple[str, int | None], ...]:
    """Return what a name may mean: a normal title, and its year if it has one.

    Example:
        >>> readings("Matrix, The (1999)")
        (('the matrix', 1999),)
        >>> readings("Blade Runner 2049")
        (('blade runner 2049', None), ('blade runner', 2049))
    """
    bare = bare_title(name)
    if (turned := _ARTICLE.fullmatch(bare)) is not None:
        bare = f"{turned['article']} {turned['rest']}"
    title, year = normal_form(bare), year_of(name)
    match = _ENDS_IN_A_YEAR.fullmatch(title)
    if year is not None or match is None:
        return ((title, year),)
    return ((title, None), (match["title"], int(match["year"])))


class SameItems:
    """Which entries of a catalogue are one item.

    Args:
        items: The entries.

    Example:
        >>> same = SameItems([Item("1", "Ran"), Item("2", "RAN (1985)"), Item("3", "Heat (1995)")])
        >>> same.first("1"), sorted(same.twins("2")), sorted(same.named("ran  1985"))
        ('2', ['1', '2'], ['1', '2'])
    """

    def __init__(self, items: Iterable[Item]) -> None:
        self._items = {item.id: item for item in items}
        self._parents = {item_id: item_id for item_id in self._items}
        self._by_title: dict[tuple[str, str], dict[int | None, list[str]]] = {}
        for item in self._items.values():
            title, year = self._readings(item)[0]
            by_year = self._by_title.setdefault((item.item_class, title), {})
            by_year.setdefault(year, []).append(item.id)
        for item in self._items.values():
            for other in self._matches(self._readings(item), item.item_class):
                self._join(item.id, other)
        by_address: dict[tuple[str, str], str] = {}
        for item in self._items.values():
            for address in item.facts.get(SAME_AS, ()):
                self._join(item.id, by_address.setdefault((item.item_class, address), item.id))
        groups: dict[str, set[str]] = {}
        for item_id in self._items:
            groups.setdefault(self._root(item_id), set()).add(item_id)
        self._groups = {item_id: frozenset(group) for group in groups.values() for item_id in group}

    def twins(self, item_id: str) -> frozenset[str]:
        """Return the entries of the same item, this one among them."""
        return self._groups.get(item_id, frozenset({item_id}))

    def first(self, item_id: str) -> str:
        """Return the entry that stands for an item: one with a year, then the first by id."""
        return min(self.twins(item_id), key=lambda each: (self._lacks_a_year(each), each))

    def _lacks_a_year(self, item_id: str) -> bool:
        return item_id in self._items and year_of(self._items[item_id].name) is None

    def named(self, name: str, item_class: str | None = None) -> frozenset[str]:
        """Return the entries of the item that a name from elsewhere means, if any."""
        classes = {kind for kind, _ in self._by_title} if item_class is None else {item_class}
        ids = (each for kind in classes for each in self._matches(readings(name), kind))
        return frozenset().union(*map(self.twins, ids))

    def several(self) -> tuple[frozenset[str], ...]:
        """Return the groups of more than one entry, in order of their first."""
        groups = {group for group in self._groups.values() if len(group) > 1}
        return tuple(sorted(groups, key=min))

    def _readings(self, item: Item) -> tuple[tuple[str, int | None], ...]:
        # What tells two entries with one name apart is no part of it.
        return readings(item.name.removesuffix(f" [{item.id}]"))

    def _matches(
        self, meanings: Collection[tuple[str, int | None]], item_class: str
    ) -> Iterator[str]:
        for title, year in meanings:
            by_year = self._by_title.get((item_class, title), {})
            years = {each for each in (*by_year, year) if each is not None}
            for other, ids in by_year.items():
                if other == year or (len(years) == 1 and None in (other, year)):
                    yield from ids

    def _root(self, item_id: str) -> str:
        while self._parents[item_id] != item_id:
            item_id = self._parents[item_id]
        return item_id

    def _join(self, one: str, other: str) -> None:
        first, last = sorted((self._root(one), self._root(other)))
        self._parents[last] = first


def with_one_entry_each(corpus: Corpus) -> Corpus:
    """Return a corpus in which each item has one entry, with the facts about all of its entries.

    Of one person's facts about an item the strongest kind counts, and of equal ones the latest. The
    entry has the public facts of all. A corpus in which each item has one entry is as it was.
    """
    same = SameItems(corpus.catalogue)
    groups = same.several()
    if not groups:
        return corpus
    merged = {same.first(min(group)): group for group in groups}
    gone = frozenset().union(*groups) - merged.keys()
    items = [
        _with_facts_of(item, [corpus.catalogue[each] for each in sorted(merged.get(item.id, ()))])
        for item in corpus.catalogue
        if item.id not in gone
    ]
    catalogue = Catalogue(items)
    note = (
        f"Same items: {len(gone)} of {len(corpus.catalogue)} entries of the catalogue count as "
        "another entry of their item; corpus.same_items: apart keeps them apart."
    )
    graphs = tuple(_one_fact_each(graph, same, catalogue) for graph in corpus.graphs)
    return replace(corpus, catalogue=catalogue, graphs=graphs, notes=(*corpus.notes, note))


def _with_facts_of(item: Item, entries: Iterable[Item]) -> Item:
    facts: dict[str, dict[str, None]] = {}
    for entry in (item, *entries):
        for relation, values in entry.facts.items():
            facts.setdefault(relation, {}).update(dict.fromkeys(values))
    return replace(item, facts={relation: tuple(values) for relation, values in facts.items()})


def _one_fact_each(graph: PersonalGraph, same: SameItems, catalogue: Catalogue) -> PersonalGraph:
    kept: dict[str, Fact] = {}
    for fact in graph.facts:
        first = same.first(fact.tail)
        held = kept.get(first)
        if held is None or STRENGTH[fact.relation] >= STRENGTH[held.relation]:
            name = catalogue[first].name if first in catalogue else fact.name
            kept[first] = replace(fact, tail=first, name=name)
    return graph.only(kept.values())
