"""The command ``pkgllm chat``."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast

import click
import typer

from pkgllm.cli.options import kept_text
from pkgllm.cli.output import echo

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pkgllm.assistant.conversation import Conversation, Understood
    from pkgllm.assistant.extraction import Question
    from pkgllm.corpora.catalogue import Item
    from pkgllm.graph.personal_graph import Relation

_HELP = """\
Tell me what you think of films:  "I loved Heat (1995) but not Alien", "I have seen the second one".
Wish for something:               "something funny from the nineties", "a thriller with Ann Lee".
Ask for the reasons:              "why?"
What is certain is written to your graph if you agree; what is not certain is asked."""


def chat(
    pkg: Annotated[Path, typer.Option(metavar="FILE", help="Your graph, JSON-LD or Turtle.")],
    adapter: Annotated[Path, typer.Option(metavar="RUN", help="Folder of a finished run.")],
    message: Annotated[
        str | None, typer.Option("--message", "-m", help="Say this and end, instead of a dialogue.")
    ] = None,
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Write what is certain without asking.")
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

    What you say of titles and people is shown, and written to your graph if you agree. What is not
    certain is asked; without a terminal, or with --message, it is named and not written. Where
    nobody can be asked, because the input is no terminal, nothing is written without --yes, which
    writes what is certain. Without --message every line is a message, until the input ends
    (Ctrl-D). Say "help" for what is understood.
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
        _turn(conversation, message, yes=yes, asks=False)
        return
    while (line := _line()) is not None:
        if not line.strip():
            continue
        try:
            _turn(conversation, line, yes=yes, asks=sys.stdin.isatty() and not yes)
        except DataError as error:
            # A wish that nothing fulfils ends no conversation.
            echo(str(error))


def _line() -> str | None:
    try:
        return input("> " if sys.stdin.isatty() else "")
    except EOFError:
        return None


def _turn(conversation: "Conversation", message: str, *, yes: bool, asks: bool) -> None:
    understood = conversation.understand(message)
    if "help" in understood.intents:
        echo(_HELP)
    if understood.extraction.nothing_named:
        echo(
            "not written: no title that I know is in your message; write it as in the catalogue, "
            "with its year or in quotes"
        )
    if understood.extraction.questions:
        answers = [
            (item, relation)
            for question in understood.extraction.questions
            for item, relation in (_asked(question) if asks else _unasked(question))
        ]
        understood = conversation.agreed(understood, answers)
    if understood.lines:
        _write(conversation, understood, yes=yes)
    if "why" in understood.intents:
        _give_reasons(conversation)
    if understood.wants_recommendations:
        response = conversation.answer(message, understood.constraints)
        if understood.constraints:
            echo(f"as you wish: {understood.constraints.words}")
        echo("for you:")
        for rank, recommendation in enumerate(response.recommendations, start=1):
            echo(f"  {rank}. {recommendation.item.name}")


def _write(conversation: "Conversation", understood: "Understood", *, yes: bool) -> None:
    echo("to be written to your graph:")
    for line in understood.lines:
        echo(f"  {line}")
    if yes or (sys.stdin.isatty() and typer.confirm("write this?")):
        with kept_text(conversation.path):
            record = conversation.write(understood)
        undo = f"pkgllm pkg undo {conversation.path}"
        echo(f"written as edit {len(record.edits)}; take it back with: {undo}")
    elif sys.stdin.isatty():
        echo("not written")
    else:
        echo("not written: there is nobody to ask here; --yes writes without asking")


def _unasked(question: "Question") -> tuple[tuple["Item", "Relation"], ...]:
    """Say what is not written and why."""
    names = ", ".join(item.name for item in question.items)
    relation = question.opinion.relation
    probably = "" if relation is None else f" ({relation})"
    if len(question.items) > 1:
        why = f"you may mean any of {names}{probably}; say it with its year"
    elif question.doubt == "title":
        why = f"did you mean {names}{probably}? Say it with its year"
    elif question.doubt == "reference":
        why = f"it is not certain that you mean {names}{probably}; name it"
    else:
        why = f"it is not certain what you think of {names}{probably}; say it in other words"
    echo(f"not written: {why}")
    return ()


def _asked(question: "Question") -> tuple[tuple["Item", "Relation"], ...]:
    """Ask which title is meant and what the person thinks of it; *nothing* writes nothing."""
    item = _which(question.items)
    if item is None:
        return ()
    asks = f"did you mean {item.name}?" if question.doubt == "title" else item.name
    answer = typer.prompt(
        f"{asks} liked, disliked, seen, unseen, or nothing",
        default=question.opinion.relation or "nothing",
        type=click.Choice(("liked", "disliked", "seen", "unseen", "nothing")),
        show_choices=False,
    )
    return () if answer == "nothing" else ((item, cast("Relation", answer)),)


def _which(items: "Sequence[Item]") -> "Item | None":
    if len(items) == 1:
        return items[0]
    for number, item in enumerate(items, start=1):
        echo(f"  {number}. {item.name}")
    number = typer.prompt(
        "which one do you mean (0: none)", default=0, type=click.IntRange(0, len(items))
    )
    return None if number == 0 else items[number - 1]


def _give_reasons(conversation: "Conversation") -> None:
    from pkgllm.report.recommendations import reasons_in_words

    response = conversation.reasons()
    if response is None:
        echo("nothing was recommended yet; ask for something first")
        return
    for one in response.as_json()["recommendations"]:
        echo(f"  {one['rank']}. {one['name']}")
        for line in reasons_in_words(one.get("why")):
            echo(f"     {line}")
