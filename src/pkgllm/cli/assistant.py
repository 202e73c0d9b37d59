"""The commands of a person with a trained adapter."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from pkgllm.assistant.guidance import Constraints


def recommend(
    adapter: Annotated[Path, typer.Option(metavar="RUN", help="Folder of a finished run.")],
    pkg: Annotated[Path, typer.Option(metavar="FILE", help="Your graph, JSON-LD or Turtle.")],
    request: Annotated[str, typer.Option(help="What you would like, in your own words.")] = "",
    top: Annotated[int, typer.Option(min=1, help="How many.")] = 10,
    genre: Annotated[
        list[str] | None, typer.Option(help="Only this genre. Repeatable, and then all must hold.")
    ] = None,
    not_genre: Annotated[
        list[str] | None, typer.Option(help="Nothing of this genre. Repeatable.")
    ] = None,
    from_year: Annotated[int | None, typer.Option(help="Not older than this.")] = None,
    to_year: Annotated[int | None, typer.Option(help="Not newer than this.")] = None,
    with_person: Annotated[
        list[str] | None,
        typer.Option("--with", help="With this director, writer or star. Repeatable."),
    ] = None,
    not_with: Annotated[
        list[str] | None, typer.Option(help="Without this person. Repeatable.")
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(metavar="SCOPE=VALUE", help="Only what has this property. Repeatable."),
    ] = None,
    excluding: Annotated[
        list[str] | None,
        typer.Option("--not", metavar="SCOPE=VALUE", help="Nothing that has it. Repeatable."),
    ] = None,
    avoid: Annotated[
        list[str] | None,
        typer.Option(help="Leave this bubble: a genre, a person, a word, .... Repeatable."),
    ] = None,
    rules: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Further rules, in JSON; your graph's own count as well."
        ),
    ] = None,
    leave_bubble: Annotated[
        bool, typer.Option("--leave-bubble", help="Find the bubble in your graph, and leave it.")
    ] = False,
    strategy: Annotated[
        Literal["none", "prompt", "adapt"],
        typer.Option(
            help="How rules are followed: not at all, by telling the model, or by asking with the "
            "graph of a person who does not share the bubble."
        ),
    ] = "adapt",
    show_adapted: Annotated[
        bool, typer.Option("--show-adapted", help="Print what that graph says instead of yours.")
    ] = False,
    why: Annotated[
        bool, typer.Option("--why", help="Tell which facts carry each title, and what connects.")
    ] = False,
    free_text: Annotated[
        bool, typer.Option("--free-text", help="Let the model write titles; no catalogue needed.")
    ] = False,
    catalogue: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Items of any domain in JSON; the run's if absent."),
    ] = None,
    base_model: Annotated[
        str | None, typer.Option(help="Where the run's base model is here; as in RUN if absent.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of what the model writes with --free-text.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Recommend from your own graph with a trained adapter.

    Genre, years, people and --only and --not decide which titles compete; the model reads them
    as well as the request. What your graph speaks of is never recommended, and its rules are
    followed.
    """
    constraints = _constraints(
        [("genre", v) for v in genre or ()] + [("person", v) for v in with_person or ()],
        [("genre", v) for v in not_genre or ()] + [("person", v) for v in not_with or ()],
        only or [],
        excluding or [],
        from_year,
        to_year,
    )

    import json

    from pkgllm.assistant.requests import Request, graph_catalogue, read_rules, respond
    from pkgllm.corpora.catalogue_file import read_catalogue_file
    from pkgllm.graph.rdf import read_record
    from pkgllm.pipeline.recommender import open_recommender
    from pkgllm.report.recommendations import recommendations_document
    from pkgllm.report.to_terminal import show

    record = read_record(pkg)
    graph = record.graph
    items = None if catalogue is None else read_catalogue_file(catalogue)
    if items is None and free_text:
        items = graph_catalogue(graph)
    recommender = open_recommender(adapter, catalogue=items, base_model=base_model).recommender
    wanted = Request(
        text=request,
        constraints=constraints,
        avoid=tuple(avoid or ()),
        rules=() if rules is None else read_rules(rules, recommender.scopes),
        standing_rules=record.rules,
        leave_bubble=leave_bubble,
        strategy=strategy,
        k=top,
        why=why,
        free_text=free_text,
        seed=seed,
    )
    response = respond(recommender, graph, wanted)
    if as_json:
        typer.echo(json.dumps(response.as_json(), ensure_ascii=False, indent=2))
    else:
        show(recommendations_document(response.as_json(), with_adapted=show_adapted))


def _constraints(
    required: list[tuple[str, str]],
    excluded: list[tuple[str, str]],
    only: list[str],
    excluding: list[str],
    from_year: int | None,
    to_year: int | None,
) -> "Constraints":
    from pkgllm.assistant.guidance import Constraints

    required += [_property(text, "--only") for text in only]
    excluded += [_property(text, "--not") for text in excluding]
    return Constraints(tuple(required), tuple(excluded), from_year, to_year)


def _property(text: str, option: str) -> tuple[str, str]:
    from pkgllm.errors import ConfigError

    scope, equals, value = text.partition("=")
    if not equals or not scope.strip() or not value.strip():
        raise ConfigError(f"{option} {text}: must be SCOPE=VALUE, for example director=Ann Lee")
    return scope.strip(), value.strip()
