"""The command ``pkgllm chat``."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from pkgllm.assistant.conversation import Conversation


def chat(
    pkg: Annotated[Path, typer.Option(metavar="FILE", help="Your graph, JSON-LD or Turtle.")],
    adapter: Annotated[Path, typer.Option(metavar="RUN", help="Folder of a finished run.")],
    message: Annotated[
        str | None, typer.Option("--message", "-m", help="Say this and end, instead of a dialogue.")
    ] = None,
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Write what was understood without asking.")
    ] = False,
    top: Annotated[int, typer.Option(min=1, help="Recommendations to each message.")] = 5,
    extractor: Annotated[
        Literal["rules", "model"],
        typer.Option(help="What reads your messages: rules, or the run's base model."),
    ] = "rules",
    catalogue: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Items with public facts, JSON; the run's if absent."),
    ] = None,
    base_model: Annotated[
        str | None, typer.Option(help="Where the run's base model is here; as in RUN if absent.")
    ] = None,
) -> None:
    """Talk about what you like, and get recommendations.

    What you say of titles and people is shown, and written to your graph if you agree. Where nobody
    can be asked, because the input is no terminal, nothing is written without --yes. Without
    --message every line is a message, until the input ends (Ctrl-D).
    """
    from pkgllm.corpora.catalogue_file import read_catalogue_file
    from pkgllm.errors import DataError
    from pkgllm.pipeline.recommender import open_conversation

    conversation = open_conversation(
        pkg,
        adapter,
        extractor=extractor,
        top=top,
        catalogue=None if catalogue is None else read_catalogue_file(catalogue),
        base_model=base_model,
    )
    if message is not None:
        _turn(conversation, message, yes=yes)
        return
    while (line := _line()) is not None:
        if not line.strip():
            continue
        try:
            _turn(conversation, line, yes=yes)
        except DataError as error:
            # A wish that nothing fulfils ends no conversation.
            typer.echo(str(error))


def _line() -> str | None:
    try:
        return input("> " if sys.stdin.isatty() else "")
    except EOFError:
        return None


def _turn(conversation: "Conversation", message: str, *, yes: bool) -> None:
    understood = conversation.understand(message)
    for items in understood.extraction.unclear:
        names = ", ".join(item.name for item in items)
        typer.echo(f"not clear: you may mean any of {names}; say it with its year")
    if understood.lines:
        typer.echo("to be written to your graph:")
        for line in understood.lines:
            typer.echo(f"  {line}")
        if yes or (sys.stdin.isatty() and typer.confirm("write this?")):
            record = conversation.write(understood)
            undo = f"pkgllm pkg undo {conversation.path}"
            typer.echo(f"written as edit {len(record.edits)}; take it back with: {undo}")
        elif sys.stdin.isatty():
            typer.echo("not written")
        else:
            typer.echo("not written: there is nobody to ask here; --yes writes without asking")
    typer.echo("for you:")
    for rank, recommendation in enumerate(conversation.answer(message), start=1):
        typer.echo(f"  {rank}. {recommendation.item.name}")
