"""The catalogue: every item that can be recommended, with what is publicly known of it."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

from pkgllm.errors import DataError
from pkgllm.graph.personal_graph import MOVIE


@dataclass(frozen=True, slots=True)
class Item:
    """One thing that can be recommended."""

    id: str
    name: str
    """The surface form, unique in its catalogue: ``Title (Year)`` for a film."""
    facts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Public facts by relation: for films ``genre``, ``director``, ``writer``, ``star``."""
    item_class: str = MOVIE
    """What it is, a class of schema.org."""


_YEAR = re.compile(r"\s*\((?P<year>\d{4})\)\s*(?:\[[^\]]*\])?$")


def bare_title(name: str) -> str:
    """Return a surface form without its year, and without the id that tells it apart.

    Example:
        >>> bare_title("The Last Harbour (1995)"), bare_title("Signs (2002) [1]")
        ('The Last Harbour', 'Signs')
    """
    return _YEAR.sub("", name)


def year_of(name: str) -> int | None:
    """Return the year in a surface form; None where it holds none.

    Example:
        >>> year_of("The Last Harbour (1995)"), year_of("Signs (2002) [1]"), year_of("Gazpacho")
        (1995, 2002, None)
    """
    match = _YEAR.search(name)
    return int(match["year"]) if match else None


def tell_apart(items: Iterable[Item]) -> tuple[Item, ...]:
    """Give items that share a surface form distinct ones, by adding their ids.

    All of the sharing items get the addition, so that no name depends on file order.

    Example:
        >>> twins = [Item("1", "Signs (2002)"), Item("2", "Signs (2002)")]
        >>> [item.name for item in tell_apart(twins)]
        ['Signs (2002) [1]', 'Signs (2002) [2]']
    """
    listed = tuple(items)
    count_by_name = Counter(item.name for item in listed)
    return tuple(
        replace(item, name=f"{item.name} [{item.id}]") if count_by_name[item.name] > 1 else item
        for item in listed
    )


class Catalogue:
    """An ordered set of items; the position of an item is its column in every score matrix.

    Args:
        items: In any order; they are kept sorted by id.

    Raises:
        DataError: If there is no item, or an id or a name stands twice.
    """

    def __init__(self, items: Iterable[Item]) -> None:
        self.items: tuple[Item, ...] = tuple(sorted(items, key=lambda item: item.id))
        if not self.items:
            raise DataError(
                "the catalogue is empty, so there is nothing to recommend: the corpus must name at "
                "least one item, got none"
            )
        for what, values in (("id", [i.id for i in self.items]), ("name", self.names)):
            (value, count), *_ = Counter(values).most_common(1)
            if count > 1:
                raise DataError(f"the catalogue has {count} items with the same {what}: {value!r}")

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[Item]:
        return iter(self.items)

    def __contains__(self, item_id: object) -> bool:
        return item_id in self.index_by_id

    def __getitem__(self, item_id: str) -> Item:
        return self.items[self.index_by_id[item_id]]

    @cached_property
    def index_by_id(self) -> Mapping[str, int]:
        """Column of each item."""
        return {item.id: index for index, item in enumerate(self.items)}

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Surface forms in column order."""
        return tuple(item.name for item in self.items)

    @cached_property
    def value_counts(self) -> Mapping[str, int]:
        """How many items have each public value, whatever relation leads to it."""
        return Counter(
            value for item in self for value in {v for vs in item.facts.values() for v in vs}
        )
