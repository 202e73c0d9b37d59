"""Options that several commands share, and commands that take options in groups."""

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import MISSING, fields, is_dataclass
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

CONFIG = typer.Option("--config", "-c", help="A file, or the name of one in ./configs or a preset.")
ConfigOption = Annotated[str, CONFIG]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", help="Override one key: training.learning_rate=5e-5. Repeatable."),
]
ProcessesOption = Annotated[
    int,
    typer.Option(
        "--processes",
        min=1,
        help="Runs at a time, among which the processors are shared out. Small models are done "
        "sooner by one run on each processor; each takes its own memory.",
    ),
]
# Click 8.5 loses the help that Typer 0.20 has for arguments; the commands' texts explain them.
ConfigArgument = Annotated[str, typer.Argument(metavar="CONFIG", hidden=True)]


def example(command: str) -> str:
    """Return an epilog that is not wrapped, so that it can be copied."""
    return f"\b\nExample:\n  {command}"


def grouped(command: Callable[..., None]) -> Callable[..., None]:
    """Let a command take options in groups: a parameter that is a dataclass stands for its fields.

    Args:
        command: Its parameters are passed by name.
    """
    groups: dict[str, type[Any]] = {}
    parameters: list[inspect.Parameter] = []

    def add(name: str, kind: Any, default: object) -> None:
        parameter = inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, annotation=kind, default=default
        )
        parameters.append(parameter)

    types = get_type_hints(command, include_extras=True)
    for name, parameter in inspect.signature(command).parameters.items():
        if is_dataclass(types[name]):
            groups[name] = types[name]
            of_group = get_type_hints(types[name], include_extras=True)
            for field in fields(types[name]):
                absent = field.default is MISSING
                add(field.name, of_group[field.name], parameter.empty if absent else field.default)
        else:
            add(name, types[name], parameter.default)

    @wraps(command)
    def call(**values: Any) -> None:
        for name, group in groups.items():
            values[name] = group(**{field.name: values.pop(field.name) for field in fields(group)})
        command(**values)

    call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    call.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return call


@contextmanager
def kept_text(file: Path) -> Iterator[None]:
    """Say where the text of a person's file is kept, if this changes one that we did not write."""
    from pkgllm.graph.personal_file import original_of

    kept = original_of(file.resolve())
    was_there = kept.exists()
    yield
    if kept.exists() and not was_there:
        typer.echo(f"{file}: comments and layout are not kept; the text as it was is in {kept}")
