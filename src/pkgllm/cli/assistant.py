"""The command ``pkgllm recommend``."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from pkgllm.cli.options import grouped
from pkgllm.errors import ConfigError

if TYPE_CHECKING:
    from pkgllm.assistant.guidance import Constraints


@dataclass(frozen=True, slots=True, kw_only=True)
class TitleOptions:
    """Which titles compete."""

    genre: Annotated[
        list[str] | None, typer.Option(help="Only this genre. Repeatable, and then all must hold.")
    ] = None
    not_genre: Annotated[
        list[str] | None, typer.Option(help="Nothing of this genre. Repeatable.")
    ] = None
    from_year: Annotated[int | None, typer.Option(help="Not older than this.")] = None
    to_year: Annotated[int | None, typer.Option(help="Not newer than this.")] = None
    with_person: Annotated[
        list[str] | None,
        typer.Option("--with", help="With this director, writer or star. Repeatable."),
    ] = None
    not_with: Annotated[list[str] | None, typer.Option(help="Without this person. Repeatable.")] = (
        None
    )
    only: Annotated[
        list[str] | None,
        typer.Option(metavar="SCOPE=VALUE", help="Only what has this property. Repeatable."),
    ] = None
    excluding: Annotated[
        list[str] | None,
        typer.Option("--not", metavar="SCOPE=VALUE", help="Nothing that has it. Repeatable."),
    ] = None

    def constraints(self) -> "Constraints":
        """Return the options as constraints.

        Raises:
            ConfigError: If a property is not ``SCOPE=VALUE``, or years are in the wrong order.
        """
        from pkgllm.assistant.guidance import Constraints

        required = _properties(self.genre, self.with_person, self.only, "--only")
        excluded = _properties(self.not_genre, self.not_with, self.excluding, "--not")
        return Constraints(required, excluded, self.from_year, self.to_year)


@dataclass(frozen=True, slots=True, kw_only=True)
class BubbleOptions:
    """What is to be left, and how."""

    avoid: Annotated[
        list[str] | None,
        typer.Option(help="Leave this bubble: a genre, a person, a word, .... Repeatable."),
    ] = None
    rules: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Further rules, in JSON; your graph's own count as well."
        ),
    ] = None
    leave_bubble: Annotated[
        bool, typer.Option("--leave-bubble", help="Find the bubble in your graph, and leave it.")
    ] = False
    strategy: Annotated[
        Literal["none", "prompt", "adapt"],
        typer.Option(
            help="How rules are followed: not at all, by telling the model, or by asking with the "
            "graph of a person who does not share the bubble."
        ),
    ] = "adapt"
    show_adapted: Annotated[
        bool, typer.Option("--show-adapted", help="Print what that graph says instead of yours.")
    ] = False


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerOptions:
    """Where the titles come from, and how they are printed."""

    why: Annotated[
        bool, typer.Option("--why", help="Tell which facts carry each title, and what connects.")
    ] = False
    free_text: Annotated[
        bool, typer.Option("--free-text", help="Let the model write titles; no catalogue needed.")
    ] = False
    catalogue: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Items of any domain in JSON; the run's if absent."),
    ] = None
    base_model: Annotated[
        str | None, typer.Option(help="Where the run's base model is here; as in RUN if absent.")
    ] = None
    seed: Annotated[int, typer.Option(help="Of what the model writes with --free-text.")] = 0
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False


@grouped
def recommend(
    *,
    adapter: Annotated[Path, typer.Option(metavar="RUN", help="Folder of a finished run.")],
    pkg: Annotated[Path, typer.Option(metavar="FILE", help="Your graph, JSON-LD or Turtle.")],
    request: Annotated[str, typer.Option(help="What you would like, in your own words.")] = "",
    top: Annotated[int, typer.Option(min=1, help="How many.")] = 10,
    titles: TitleOptions,
    bubble: BubbleOptions,
    answer: AnswerOptions,
) -> None:
    """Recommend from your own graph with a trained adapter.

    Genre, years, people and --only and --not decide which titles compete; the model reads them
    as well as the request. What your graph speaks of is never recommended, and its rules are
    followed.
    """
    constraints = titles.constraints()

    import json

    from pkgllm.assistant.requests import Request, graph_catalogue, read_rules, respond
    from pkgllm.corpora.catalogue_file import read_catalogue_file
    from pkgllm.graph.rdf import read_record
    from pkgllm.pipeline.recommender import open_recommender
    from pkgllm.report.recommendations import recommendations_document
    from pkgllm.report.to_terminal import show

    record = read_record(pkg)
    items = None if answer.catalogue is None else read_catalogue_file(answer.catalogue)
    if items is None and answer.free_text:
        items = graph_catalogue(record.graph)
    opened = open_recommender(adapter, catalogue=items, base_model=answer.base_model)
    recommender = opened.recommender
    wanted = Request(
        text=request,
        constraints=constraints,
        avoid=tuple(bubble.avoid or ()),
        rules=() if bubble.rules is None else read_rules(bubble.rules, recommender.scopes),
        standing_rules=record.rules,
        leave_bubble=bubble.leave_bubble,
        strategy=bubble.strategy,
        k=top,
        why=answer.why,
        free_text=answer.free_text,
        seed=answer.seed,
    )
    response = respond(recommender, record.graph, wanted).as_json()
    if answer.as_json:
        typer.echo(json.dumps(response, ensure_ascii=False, indent=2))
    else:
        show(recommendations_document(response, with_adapted=bubble.show_adapted))


def _properties(
    genres: list[str] | None, people: list[str] | None, others: list[str] | None, option: str
) -> tuple[tuple[str, str], ...]:
    return (
        *(("genre", genre) for genre in genres or ()),
        *(("person", person) for person in people or ()),
        *(_property(text, option) for text in others or ()),
    )


def _property(text: str, option: str) -> tuple[str, str]:
    scope, equals, value = text.partition("=")
    if not equals or not scope.strip() or not value.strip():
        raise ConfigError(f"{option} {text}: must be SCOPE=VALUE, for example director=Ann Lee")
    return scope.strip(), value.strip()
