"""The items that an editor of a graph names, and the changes of an edit in words."""

from collections import Counter
from collections.abc import Iterator, Sequence

from pkgllm.assistant.linking import Linker
from pkgllm.corpora.catalogue import Catalogue, Item
from pkgllm.corpora.sameness import SameItems
from pkgllm.errors import DataError
from pkgllm.graph.personal_graph import MOVIE, Fact
from pkgllm.graph.personal_record import Edit, PersonalRecord, Verdict
from pkgllm.graph.rules import Rule


def known_items(record: PersonalRecord, catalogue: Catalogue | None) -> tuple[Item, ...]:
    """Return the items of a catalogue, and those that are only in the record."""
    items = {} if catalogue is None else {item.id: item for item in catalogue}
    for item in _items_of(record):
        items.setdefault(item.id, item)
    return tuple(items.values())


def _items_of(record: PersonalRecord) -> tuple[Item, ...]:
    facts = [s.content for s in record.statements if isinstance(s.content, Fact)]
    return tuple(Item(f.tail, f.name, item_class=f.item_class) for f in facts)


def as_in_record(item: Item, record: PersonalRecord) -> Item:
    """Return the entry under which a record has an item already, or the item.

    So a verdict on another entry of the same item replaces what was said, and stands beside none.
    """
    held = {each.id: each for each in _items_of(record)}
    if item.id in held:
        return item
    for twin in sorted(SameItems(held.values()).named(item.name, item.item_class)):
        return held[twin]
    return item


def as_said_before(verdict: Verdict, record: PersonalRecord) -> Verdict:
    """Return a verdict about the entry under which a record has its item already."""
    item = as_in_record(Item(verdict.tail, verdict.name, item_class=verdict.item_class), record)
    return verdict._replace(tail=item.id, name=item.name, item_class=item.item_class)


def find_items(
    texts: Sequence[str], record: PersonalRecord, catalogue: Catalogue | None
) -> tuple[Item, ...]:
    """Return the items that a person names, each once.

    Args:
        texts: One name each.
        record: Contains known items.
        catalogue: Contains further known items.

    Raises:
        DataError: If a name is unknown, with close spellings, or ambiguous.
    """
    linker = Linker(known_items(record, catalogue))
    try:
        items = [as_in_record(linker.resolve(text), record) for text in texts]
    except DataError as error:
        if catalogue is not None:
            raise
        raise DataError(
            f"{error}; without --catalogue or --config only the items of the graph are known: name "
            "one of these, or add the item with --id"
        ) from error
    return tuple({item.id: item for item in items}.values())


def new_item(text: str, item_id: str, record: PersonalRecord, catalogue: Catalogue | None) -> Item:
    """Return an item by its id; a new one gets the most frequent class of the known ones.

    Raises:
        DataError: If the id is that of an item with another name.
    """
    known = known_items(record, catalogue)
    for item in known:
        if item.id != item_id:
            continue
        if item.name != text:
            raise DataError(
                f"--id {item_id}: is the id of {item.name!r}, got the name {text!r}; give "
                "its whole name, or another id"
            )
        return item
    classes = Counter(item.item_class for item in known)
    return Item(item_id, text, item_class=max(classes, key=classes.__getitem__, default=MOVIE))


def in_words(content: Fact | Rule) -> str:
    """Return a statement as text.

    Example:
        >>> from pkgllm.graph.personal_graph import Provenance
        >>> source = Provenance("own_edit", "edit/1")
        >>> in_words(Rule("r1", "person", "Harrison Ford", "prefer", 0.5, source))
        'prefer person Harrison Ford (strength 0.5)'
    """
    if isinstance(content, Fact):
        return f"{content.relation} {content.name}"
    strength = "" if content.strength == 1 else f" (strength {content.strength:g})"
    return f"{content.direction} {content.scope} {content.value}{strength}"


def changes(record: PersonalRecord, edit: Edit) -> Iterator[str]:
    """Yield a line for each statement that an edit made or ended."""
    ended = {_about(s.content): s.content for s in record.ended_by(edit)}
    for statement in record.made_by(edit):
        before = ended.pop(_about(statement.content), None)
        replaced = "" if before is None else f" (before: {in_words(before)})"
        yield f"{in_words(statement.content)}{replaced}"
    for content in ended.values():
        yield f"no more: {in_words(content)}"


def _about(content: Fact | Rule) -> tuple[str, str]:
    if isinstance(content, Fact):
        return "item", content.tail
    return content.scope, content.value
