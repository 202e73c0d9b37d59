"""The commands of ``pkgllm pkg``: look at one person's graph, and edit it."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from pkgllm.cli.options import example, grouped, kept_text
from pkgllm.cli.output import echo
from pkgllm.errors import ConfigError, DataError

if TYPE_CHECKING:
    from collections.abc import Callable

    from pkgllm.corpora.catalogue import Catalogue, Item
    from pkgllm.graph.personal_graph import Relation
    from pkgllm.graph.personal_record import PersonalRecord

pkg_app = typer.Typer(help="Look at one person's graph, and edit it.", no_args_is_help=True)
rules_app = typer.Typer(help="Say what to see less or more of.", no_args_is_help=True)
pkg_app.add_typer(rules_app, name="rules")

FileArgument = Annotated[Path, typer.Argument(metavar="FILE", hidden=True)]
ItemsArgument = Annotated[list[str], typer.Argument(metavar="ITEM...", hidden=True)]


@dataclass(frozen=True, slots=True, kw_only=True)
class LookupOptions:
    """Where items are looked up."""

    catalogue: Annotated[
        Path | None,
        typer.Option(help="Look items up in this file, a catalogue.json of pkgllm data build."),
    ] = None
    config: Annotated[
        str | None,
        typer.Option("--config", "-c", help="Look items up in the corpus of this configuration."),
    ] = None
    item_id: Annotated[
        str | None,
        typer.Option("--id", help="The item's id; adds one that no catalogue has. For one ITEM."),
    ] = None

    def read(self) -> "Catalogue | None":
        """Return the catalogue, if one is named.

        Raises:
            ConfigError: If both a file and a configuration are named, or the latter is wrong.
            DataError: If the catalogue cannot be read.
        """
        if self.catalogue is not None and self.config is not None:
            raise ConfigError("--catalogue does not go with --config; give one of them")
        if self.catalogue is not None:
            from pkgllm.corpora.catalogue_file import read_catalogue_file

            return read_catalogue_file(self.catalogue)
        if self.config is not None:
            from pkgllm.config.load import load_config

            tree = load_config(self.config, [])

            from pkgllm.pipeline.build import read_corpus

            return read_corpus(tree).catalogue
        return None


@pkg_app.command(epilog=example("pkgllm pkg new me.jsonld --owner me"))
def new(
    file: FileArgument,
    owner: Annotated[str, typer.Option(help="The person's id in the graph.")],
) -> None:
    """Make the graph of a person of whom nothing is known yet.

    FILE ends in .jsonld, .json, .ttl, .trig or .nq, and can be read by you alone until you allow
    more.
    """
    from pkgllm.graph.personal_file import create

    create(file, owner)
    echo(f"{file}: the graph of {owner}, with no facts")


@pkg_app.command("show", epilog=example("pkgllm pkg show built/graphs/1.jsonld"))
def show_graph(file: FileArgument) -> None:
    """Print one person's facts, newest last, and rules.

    FILE is a graph in JSON-LD or Turtle.
    """
    from pkgllm.graph.rdf import read_record
    from pkgllm.report.graphs import graph_document
    from pkgllm.report.to_terminal import show

    record = read_record(file)
    show(graph_document(record.graph, record.rules))


_REPLACED = """\
Each ITEM is a name, with or without its year. What was said of it before is replaced, and stays in
the history."""
_VERDICT_STAYS = """\
Each ITEM is a name, with or without its year. A verdict, liked or disliked, stays: it says already
that the item was seen."""


def _add_command(verb: str, relation: "Relation", words: str, remark: str, sample: str) -> None:
    text = f"Say that the person {words} something.\n\nFILE is the person's graph. {remark}"

    @pkg_app.command(verb, help=text, epilog=example(f"pkgllm pkg {verb} me.jsonld {sample}"))
    @grouped
    def say(file: FileArgument, items: ItemsArgument, lookup: LookupOptions) -> None:
        from pkgllm.assistant.editing import find_items, new_item
        from pkgllm.graph.personal_record import Verdict

        catalogue, item_id = lookup.read(), lookup.item_id
        if item_id is not None and len(items) != 1:
            raise ConfigError(f"--id goes with one ITEM, got {len(items)}")

        def verdicts(record: "PersonalRecord") -> dict[str, Any]:
            if item_id is not None:
                resolved: tuple[Item, ...] = (new_item(items[0], item_id, record, catalogue),)
            else:
                resolved = find_items(items, record, catalogue)
            return {"verdicts": [Verdict(relation, i.id, i.name, i.item_class) for i in resolved]}

        _edit(file, verb, verdicts)


_add_command("like", "liked", "liked", _REPLACED, '"Heat (1995)" --catalogue cat.json')
_add_command("dislike", "disliked", "disliked", _REPLACED, "Heat -c quickstart.yaml")
_add_command("seen", "seen", "has seen", _VERDICT_STAYS, '"My Own Film (2026)" --id own-1')


@pkg_app.command(epilog=example("pkgllm pkg forget me.jsonld Heat Ran"))
def forget(file: FileArgument, items: ItemsArgument) -> None:
    """Take back what the graph says of something.

    FILE is the person's graph. Each ITEM is a name in it, with or without its year. The history
    keeps what was said; pkgllm pkg export --no-history leaves it out.
    """
    from pkgllm.assistant.linking import Linker
    from pkgllm.corpora.catalogue import Item

    def tails(record: "PersonalRecord") -> dict[str, Any]:
        linker = Linker([Item(fact.tail, fact.name) for fact in record.graph.facts])
        return {"forget": {linker.resolve(text).id for text in items}}

    _edit(file, "forget", tails)


@pkg_app.command(epilog=example("pkgllm pkg history me.jsonld"))
def history(file: FileArgument) -> None:
    """Print every edit with what it changed, oldest first.

    FILE is the person's graph.
    """
    from pkgllm.assistant.editing import changes
    from pkgllm.graph.rdf import read_record
    from pkgllm.report.graphs import history_document
    from pkgllm.report.to_terminal import show

    record = read_record(file)
    edits = [(edit, list(changes(record, edit))) for edit in record.edits]
    show(history_document(record.owner, edits))


@pkg_app.command(epilog=example("pkgllm pkg undo me.jsonld"))
def undo(file: FileArgument) -> None:
    """Take the last edit back, without a trace; repeat it to go further back.

    FILE is the person's graph.
    """
    from pkgllm.assistant.editing import changes

    def make(record: "PersonalRecord") -> "PersonalRecord":
        if not record.edits:
            raise DataError(f"{file}: there is no edit to undo")
        return record.undone()

    before, _ = _change(file, make)
    last = before.edits[-1]
    echo(f"taken back: edit {last.number}, {last.action}")
    for line in changes(before, last):
        echo(f"  {line}")


@pkg_app.command(epilog=example("pkgllm pkg export me.jsonld -o me.ttl --no-history"))
def export(
    file: FileArgument,
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="The file to write: .jsonld, .ttl, .trig or .nq."),
    ],
    history: Annotated[
        bool, typer.Option(help="Write edits and what they ended, not only what holds.")
    ] = True,
) -> None:
    """Write the graph as JSON-LD, Turtle, TriG or N-Quads, by the ending of the file.

    FILE is the person's graph. What other programs wrote into it is written too. What is written
    can be read by you alone until you allow more.
    """
    from pkgllm.graph.rdf import read_document, write_document
    from pkgllm.report.graphs import numbered

    document = read_document(file)
    if not history:
        document = document.changed(document.record.without_history())
    if output.exists():
        raise DataError(f"{output}: exists already; choose another name")
    write_document(document, output)
    others = document.num_others
    beside = f", and {numbered(others, 'triple')} of other programs" if others else ""
    echo(f"{output}: {_counted(document.record)}{beside}")


@pkg_app.command(epilog=example("pkgllm pkg validate me.jsonld"))
def validate(file: FileArgument) -> None:
    """Check a file against the SHACL shapes of a personal graph.

    FILE is a graph in JSON-LD or Turtle. Exits with 1 where anything is violated.
    """
    from pkgllm.graph.rdf import read_record
    from pkgllm.graph.validation import violations
    from pkgllm.report.graphs import numbered

    lines = list(violations(file))
    for line in lines:
        echo(line)
    if lines:
        echo(f"{file}: {numbered(len(lines), 'violation')}")
        raise typer.Exit(1)
    echo(f"{file}: good, {_counted(read_record(file))}")


@rules_app.command("list", epilog=example("pkgllm pkg rules list me.jsonld"))
def list_rules(file: FileArgument) -> None:
    """Print the rules of a person.

    FILE is the person's graph.
    """
    from pkgllm.graph.rdf import read_record
    from pkgllm.report.graphs import rules_document
    from pkgllm.report.to_terminal import show

    show(rules_document(read_record(file).rules))


@rules_app.command("add", epilog=example("pkgllm pkg rules add me.jsonld avoid genre Horror"))
def add_rule(
    file: FileArgument,
    direction: Annotated[
        Literal["avoid", "prefer"], typer.Argument(metavar="DIRECTION", hidden=True)
    ],
    scope: Annotated[str, typer.Argument(metavar="SCOPE", hidden=True)],
    value: Annotated[str, typer.Argument(metavar="VALUE", hidden=True)],
    strength: Annotated[float, typer.Option(help="Above 0 and at most 1.")] = 1.0,
) -> None:
    """Say what to see less of, or more of.

    FILE is the person's graph; DIRECTION is avoid or prefer; SCOPE is genre, person, decade,
    keyword or franchise for films; VALUE is a value of it. A rule of the same scope and value is
    replaced.
    """
    from pkgllm.graph.personal_record import Wish

    def wishes(record: "PersonalRecord") -> dict[str, Any]:
        return {"wishes": [Wish(direction, scope.strip(), " ".join(value.split()), strength)]}

    _edit(file, f"rules add {direction}", wishes)


@rules_app.command("remove", epilog=example("pkgllm pkg rules remove me.jsonld r1"))
def remove_rules(
    file: FileArgument,
    rules: Annotated[list[str], typer.Argument(metavar="RULE...", hidden=True)],
) -> None:
    """Take rules back.

    FILE is the person's graph; each RULE is an id as pkgllm pkg rules list prints it.
    """

    def dropped(record: "PersonalRecord") -> dict[str, Any]:
        ids = [rule.id for rule in record.rules]
        for unknown in (rule for rule in rules if rule not in ids):
            raise DataError(
                f"{file}: there is no rule {unknown!r}; its rules are {', '.join(ids) or 'none'}"
            )
        return {"drop": rules}

    _edit(file, "rules remove", dropped)


def _edit(
    file: Path, action: str, changes_of: "Callable[[PersonalRecord], dict[str, Any]]"
) -> None:
    """Change a person's graph by hand, and print what is changed.

    Args:
        file: The graph.
        action: What the history calls the edit.
        changes_of: The arguments of ``PersonalRecord.edited`` for a record.
    """
    from datetime import UTC, datetime

    from pkgllm.assistant.editing import changes
    from pkgllm.graph.personal_graph import Provenance

    def make(record: "PersonalRecord") -> "PersonalRecord":
        source = Provenance("own_edit", f"edit/{record.next_number}")
        now = datetime.now(UTC).replace(microsecond=0)
        try:
            return record.edited(action, now, source, **changes_of(record))
        except ValueError as error:
            raise ConfigError(str(error)) from error

    before, after = _change(file, make)
    if after == before:
        echo(f"{file}: says so already, nothing is changed")
        return
    edit = after.edits[-1]
    for line in changes(after, edit):
        echo(line)
    echo(f"edit {edit.number}; take it back with: pkgllm pkg undo {file}")


def _change(
    file: Path, make: "Callable[[PersonalRecord], PersonalRecord]"
) -> "tuple[PersonalRecord, PersonalRecord]":
    from pkgllm.graph.personal_file import change

    with kept_text(file):
        return change(file, make)


def _counted(record: "PersonalRecord") -> str:
    from pkgllm.report.graphs import numbered

    facts = numbered(len(record.graph.facts), "fact")
    return f"{facts}, {numbered(len(record.rules), 'rule')}, {numbered(len(record.edits), 'edit')}"
