"""The commands of ``pkgllm pkg``: look at one person's graph, and edit it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from pkgllm.cli.options import example

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from pkgllm.corpora.catalogue import Catalogue, Item
    from pkgllm.graph.personal_graph import Provenance, Relation
    from pkgllm.graph.personal_record import PersonalRecord

pkg_app = typer.Typer(help="Look at one person's graph, and edit it.", no_args_is_help=True)
rules_app = typer.Typer(help="Say what to see less or more of.", no_args_is_help=True)
pkg_app.add_typer(rules_app, name="rules")

FileArgument = Annotated[Path, typer.Argument(metavar="FILE", hidden=True)]
ItemsArgument = Annotated[list[str], typer.Argument(metavar="ITEM...", hidden=True)]
CatalogueOption = Annotated[
    Path | None,
    typer.Option(help="Look items up in this file, a catalogue.json of pkgllm data build."),
]
ConfigOption = Annotated[
    str | None,
    typer.Option("--config", "-c", help="Look items up in the corpus of this configuration."),
]
IdOption = Annotated[
    str | None,
    typer.Option("--id", help="The item's id; adds one that no catalogue has. For one ITEM."),
]


@pkg_app.command(epilog=example("pkgllm pkg new me.jsonld --owner me"))
def new(
    file: FileArgument,
    owner: Annotated[str, typer.Option(help="The person's id in the graph.")],
) -> None:
    """Make the graph of a person of whom nothing is known yet.

    FILE ends in .jsonld, .json or .ttl, and can be read by you alone until you allow more.
    """
    from pkgllm.graph.personal_file import create

    create(file, owner)
    typer.echo(f"{file}: the graph of {owner}, with no facts")


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


@pkg_app.command(epilog=example('pkgllm pkg like me.jsonld "Heat (1995)" --catalogue cat.json'))
def like(
    file: FileArgument,
    items: ItemsArgument,
    catalogue: CatalogueOption = None,
    config: ConfigOption = None,
    item_id: IdOption = None,
) -> None:
    """Say that the person liked something.

    FILE is the person's graph. Each ITEM is a name, with or without its year. What was said of it
    before is replaced, and stays in the history.
    """
    _say("like", "liked", file, items, _catalogue(catalogue, config), item_id)


@pkg_app.command(epilog=example("pkgllm pkg dislike me.jsonld Heat -c quickstart.yaml"))
def dislike(
    file: FileArgument,
    items: ItemsArgument,
    catalogue: CatalogueOption = None,
    config: ConfigOption = None,
    item_id: IdOption = None,
) -> None:
    """Say that the person disliked something.

    FILE is the person's graph. Each ITEM is a name, with or without its year. What was said of it
    before is replaced, and stays in the history.
    """
    _say("dislike", "disliked", file, items, _catalogue(catalogue, config), item_id)


@pkg_app.command(epilog=example('pkgllm pkg seen me.jsonld "My Own Film (2026)" --id own-1'))
def seen(
    file: FileArgument,
    items: ItemsArgument,
    catalogue: CatalogueOption = None,
    config: ConfigOption = None,
    item_id: IdOption = None,
) -> None:
    """Say that the person has seen something.

    FILE is the person's graph. Each ITEM is a name, with or without its year. A verdict, liked or
    disliked, stays: it says already that the item was seen.
    """
    _say("seen", "seen", file, items, _catalogue(catalogue, config), item_id)


@pkg_app.command(epilog=example("pkgllm pkg forget me.jsonld Heat Ran"))
def forget(file: FileArgument, items: ItemsArgument) -> None:
    """Take back what the graph says of something.

    FILE is the person's graph. Each ITEM is a name in it, with or without its year. The history
    keeps what was said; pkgllm pkg export --no-history leaves it out.
    """
    from pkgllm.assistant.linking import Linker
    from pkgllm.corpora.catalogue import Item

    def make(record: "PersonalRecord") -> "PersonalRecord":
        linker = Linker([Item(fact.tail, fact.name) for fact in record.graph.facts])
        tails = {linker.resolve(text).id for text in items}
        return record.edited("forget", _now(), _by_hand(record), forget=tails)

    _change(file, make)


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
    from pkgllm.errors import DataError
    from pkgllm.graph.personal_file import change

    def make(record: "PersonalRecord") -> "PersonalRecord":
        if not record.edits:
            raise DataError(f"{file}: there is no edit to undo")
        return record.undone()

    before, _ = change(file, make)
    last = before.edits[-1]
    typer.echo(f"taken back: edit {last.number}, {last.action}")
    for line in changes(before, last):
        typer.echo(f"  {line}")


@pkg_app.command(epilog=example("pkgllm pkg export me.jsonld -o me.ttl --no-history"))
def export(
    file: FileArgument,
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="The file to write: .jsonld, .json or .ttl."),
    ],
    history: Annotated[
        bool, typer.Option(help="Write edits and what they ended, not only what holds.")
    ] = True,
) -> None:
    """Write the graph as JSON-LD or Turtle, by the ending of the file.

    FILE is the person's graph. What is written can be read by you alone until you allow more.
    """
    from pkgllm.errors import DataError
    from pkgllm.graph.rdf import read_record, write_graph

    record = read_record(file)
    if not history:
        record = record.without_history()
    if output.exists():
        raise DataError(f"{output}: exists already; choose another name")
    write_graph(record, output, private=True)
    typer.echo(f"{output}: {_counted(record)}")


@pkg_app.command(epilog=example("pkgllm pkg validate me.jsonld"))
def validate(file: FileArgument) -> None:
    """Check a file against the SHACL shapes of a personal graph.

    FILE is a graph in JSON-LD or Turtle. Exits with 1 where anything is violated.
    """
    from pkgllm.graph.rdf import read_record
    from pkgllm.graph.validation import violations
    from pkgllm.report.graphs import numbered

    found = violations(file)
    for line in found:
        typer.echo(line)
    if found:
        typer.echo(f"{file}: {numbered(len(found), 'violation')}")
        raise typer.Exit(1)
    typer.echo(f"{file}: good, {_counted(read_record(file))}")


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
    from pkgllm.errors import ConfigError
    from pkgllm.graph.personal_record import Wish

    def make(record: "PersonalRecord") -> "PersonalRecord":
        try:
            return record.edited(
                f"rules add {direction}",
                _now(),
                _by_hand(record),
                wishes=[Wish(direction, scope.strip(), " ".join(value.split()), strength)],
            )
        except ValueError as error:
            raise ConfigError(str(error)) from error

    _change(file, make)


@rules_app.command("remove", epilog=example("pkgllm pkg rules remove me.jsonld r1"))
def remove_rules(
    file: FileArgument,
    rules: Annotated[list[str], typer.Argument(metavar="RULE...", hidden=True)],
) -> None:
    """Take rules back.

    FILE is the person's graph; each RULE is an id as pkgllm pkg rules list prints it.
    """
    from pkgllm.errors import DataError

    def make(record: "PersonalRecord") -> "PersonalRecord":
        ids = [rule.id for rule in record.rules]
        for unknown in (rule for rule in rules if rule not in ids):
            raise DataError(
                f"{file}: there is no rule {unknown!r}; its rules are {', '.join(ids) or 'none'}"
            )
        return record.edited("rules remove", _now(), _by_hand(record), drop=rules)

    _change(file, make)


def _say(
    action: str,
    relation: "Relation",
    file: Path,
    texts: list[str],
    catalogue: "Catalogue | None",
    item_id: str | None,
) -> None:
    from pkgllm.assistant.editing import find_items, new_item
    from pkgllm.errors import ConfigError
    from pkgllm.graph.personal_record import Verdict

    if item_id is not None and len(texts) != 1:
        raise ConfigError(f"--id goes with one ITEM, got {len(texts)}")

    def make(record: "PersonalRecord") -> "PersonalRecord":
        if item_id is not None:
            items: tuple[Item, ...] = (new_item(texts[0], item_id, record, catalogue),)
        else:
            items = find_items(texts, record, catalogue)
        return record.edited(
            action,
            _now(),
            _by_hand(record),
            verdicts=[Verdict(relation, i.id, i.name, i.item_class) for i in items],
        )

    _change(file, make)


def _change(file: Path, make: "Callable[[PersonalRecord], PersonalRecord]") -> None:
    from pkgllm.assistant.editing import changes
    from pkgllm.graph.personal_file import change

    before, after = change(file, make)
    if after == before:
        typer.echo(f"{file}: says so already, nothing is changed")
        return
    edit = after.edits[-1]
    for line in changes(after, edit):
        typer.echo(line)
    typer.echo(f"edit {edit.number}; take it back with: pkgllm pkg undo {file}")


def _catalogue(file: Path | None, config: str | None) -> "Catalogue | None":
    from pkgllm.errors import ConfigError

    if file is not None and config is not None:
        raise ConfigError("--catalogue does not go with --config; give one of them")
    if file is not None:
        from pkgllm.corpora.catalogue_file import read_catalogue_file

        return read_catalogue_file(file)
    if config is not None:
        from pkgllm.config.load import load_config

        tree = load_config(config, [])

        from pkgllm.pipeline.build import read_corpus

        return read_corpus(tree).catalogue
    return None


def _now() -> "datetime":
    from datetime import UTC, datetime

    return datetime.now(UTC).replace(microsecond=0)


def _by_hand(record: "PersonalRecord") -> "Provenance":
    from pkgllm.graph.personal_graph import Provenance

    return Provenance("own_edit", f"edit/{record.next_number}")


def _counted(record: "PersonalRecord") -> str:
    from pkgllm.report.graphs import numbered

    facts = numbered(len(record.graph.facts), "fact")
    return f"{facts}, {numbered(len(record.rules), 'rule')}, {numbered(len(record.edits), 'edit')}"
