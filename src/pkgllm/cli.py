"""The commands: parse, call, print. Heavy imports happen inside them."""

import logging
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pkgllm import __version__
from pkgllm.errors import PkgllmError

if TYPE_CHECKING:
    from pkgllm.config.schema import Experiment
    from pkgllm.experiment.ranking import Report
    from pkgllm.terminal import TerminalProgress

app = typer.Typer(
    name="pkgllm",
    help="Federated preference tuning of small language models on personal knowledge graphs.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
config_app = typer.Typer(help="Look at configurations.", no_args_is_help=True)
data_app = typer.Typer(help="Build the clients' graphs.", no_args_is_help=True)
pkg_app = typer.Typer(help="Look at one person's graph.", no_args_is_help=True)
app.add_typer(config_app, name="config")
app.add_typer(data_app, name="data")
app.add_typer(pkg_app, name="pkg")

ConfigOption = Annotated[
    str,
    typer.Option("--config", "-c", help="A file, or the name of one in ./configs or a preset."),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", help="Override one key: training.learning_rate=5e-5. Repeatable."),
]
ConfigArgument = Annotated[str, typer.Argument(help="A file, or the name of a preset.")]


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        typer.echo(f"pkgllm {__version__}")
        raise typer.Exit
    # Our own logger only: Flower's and others' go on telling what their users set up.
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
    logging.getLogger("pkgllm").handlers = [handler]


@app.command(
    epilog="Example: pkgllm train --config fedkto.yaml --set seed=1 --output runs/fedkto-1"
)
def train(
    config: ConfigOption,
    overrides: SetOption = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The run folder to make.")
    ] = None,
) -> None:
    """Build, train, rank and report, as one configuration says."""
    tree = _load(config, overrides)
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    path = output or Path(tree.output) / f"{Path(config).stem}-{stamp}"
    progress = _progress()

    from pkgllm.experiment import jobs

    typer.echo(f"run folder: {path}", err=True)
    _show(jobs.train(tree, path, progress))


@app.command(epilog="Example: pkgllm evaluate runs/fedkto-1 --data other_people --output others")
def evaluate(
    run: Annotated[Path, typer.Argument(help="The folder of a finished run.")],
    data: Annotated[
        Path | None,
        typer.Option(help="Rank the clients of another folder in ReDial's format instead."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder to make for the results.")
    ] = None,
) -> None:
    """Rank a run's model again, on its own clients or on other people's."""
    progress = _progress()

    from pkgllm.experiment import jobs

    _show(jobs.evaluate_run(run, progress, data=data, output=output))


@config_app.command("check", epilog="Example: pkgllm config check my.yaml --set seed=1")
def config_check(file: ConfigArgument, overrides: SetOption = None) -> None:
    """Tell everything that is wrong with a configuration."""
    _load(file, overrides)
    typer.echo(f"{file}: good")


@config_app.command("show", epilog="Example: pkgllm config show fedkto.yaml > mine.yaml")
def config_show(file: ConfigArgument, overrides: SetOption = None) -> None:
    """Print a configuration with every default."""
    from pkgllm.config.load import dump_config

    typer.echo(dump_config(_load(file, overrides)), nl=False)


@data_app.command("build", epilog="Example: pkgllm data build -c quickstart.yaml -o graphs")
def data_build(
    config: ConfigOption,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to make.")],
    overrides: SetOption = None,
) -> None:
    """Write every client's graph as JSON-LD, and the split."""
    tree = _load(config, overrides)
    progress = _progress()

    from pkgllm.experiment import jobs

    count = jobs.build_data(tree, output, progress)
    typer.echo(f"{count} graphs and the split are in {output}")


@pkg_app.command("show", epilog="Example: pkgllm pkg show graphs/graphs/10001.jsonld")
def pkg_show(
    file: Annotated[Path, typer.Argument(help="A graph as JSON-LD or Turtle.")],
) -> None:
    """Print one person's facts, newest last."""
    from rich.console import Console

    from pkgllm.graph.rdf import read_graph
    from pkgllm.report.graphs import graph_table

    console = Console()
    console.print(graph_table(read_graph(file)))


def _load(name: str, overrides: list[str] | None) -> "Experiment":
    from pkgllm.config.load import load_config

    return load_config(name, overrides or [])


def _progress() -> "TerminalProgress":
    from rich.console import Console

    from pkgllm.terminal import TerminalProgress

    return TerminalProgress(Console(stderr=True))


def _show(report: "Report") -> None:
    from rich.console import Console

    from pkgllm.report.tables import remarks, terminal_tables

    console = Console()
    console.print(report.title, style="bold", highlight=False)
    for table in terminal_tables(report.results, width=console.width):
        console.print(table)
    for note in (*report.notes, *remarks(report.results)):
        console.print(f"- {note}", highlight=False, markup=False)
    typer.echo(f"results: {report.folder / 'results.json'}")


def main() -> None:
    """Run a command; exit 0 when done, 1 when it cannot be done, 2 when called wrongly."""
    try:
        app()
    except PkgllmError as error:
        typer.echo(f"pkgllm: {error}", err=True)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        typer.echo("pkgllm: stopped; what was written stays", err=True)
        sys.exit(1)
    except OSError as error:
        typer.echo(f"pkgllm: {error.strerror or error}: {error.filename}", err=True)
        sys.exit(1)
