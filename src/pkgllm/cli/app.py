"""The commands: parse, call, print. Heavy imports happen inside them."""

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NoReturn

import typer
from click import ClickException, UsageError
from click.exceptions import NoArgsIsHelpError

from pkgllm import __version__
from pkgllm.cli.assistant import recommend
from pkgllm.cli.chat import chat
from pkgllm.cli.federation import federation_app
from pkgllm.cli.options import CONFIG, ConfigArgument, ConfigOption, SetOption, example
from pkgllm.cli.output import echo
from pkgllm.cli.pkg import pkg_app
from pkgllm.cli.privacy import privacy_app
from pkgllm.cli.reproduce import reproduce_app
from pkgllm.cli.sweep import sweep
from pkgllm.errors import PkgllmError
from pkgllm.files import expanded
from pkgllm.interrupts import keep_interrupts
from pkgllm.threads import wait_briefly

if TYPE_CHECKING:
    from pkgllm.config.schema import AnyExperiment
    from pkgllm.report.evaluation import Report

_INTERRUPTED = 130
"""What typer returns after Ctrl-C."""

app = typer.Typer(
    name="pkgllm",
    help="Federated preference tuning of small language models on personal knowledge graphs.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    # Click suggests by itself.
    suggest_commands=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
config_app = typer.Typer(help="Look at configurations.", no_args_is_help=True)
data_app = typer.Typer(help="Build the clients' graphs.", no_args_is_help=True)
# Typer would escape the brackets of "[required]" for rich, which does not write our help.
typer.core.HAS_RICH = False
app.add_typer(config_app, name="config")
app.add_typer(data_app, name="data")
app.add_typer(pkg_app, name="pkg")
app.add_typer(federation_app, name="federation")
app.add_typer(privacy_app, name="privacy")
app.add_typer(reproduce_app, name="reproduce")


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        echo(f"pkgllm {__version__}")
        raise typer.Exit


@app.command(epilog=example("pkgllm train -c quickstart.yaml --set seed=1 -o runs/first"))
def train(
    context: typer.Context,
    config: Annotated[str | None, CONFIG] = None,
    overrides: SetOption = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The run folder to make.")
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(
            metavar="RUN",
            help="Go on with this run, which was stopped, killed or failed, instead of a new one.",
        ),
    ] = None,
    from_round: Annotated[
        int | None,
        typer.Option(
            min=1, help="With --resume: go back to the checkpoint of this round; see --keep."
        ),
    ] = None,
    keep: Annotated[int, typer.Option(min=1, help="Checkpoints that stay, the newest ones.")] = 2,
    insecure_fixed_noise: Annotated[
        bool,
        typer.Option(
            "--insecure-fixed-noise",
            help="Take private noise from the seed. For tests; the run is marked as not private.",
        ),
    ] = False,
) -> None:
    """Train and rank, or go on with a run.

    The first Ctrl-C ends after the round in flight and its checkpoint, the second one at once.
    """
    if config is None and resume is None:
        raise UsageError("Missing option '--config' / '-c', or --resume.", context)
    if output is not None and resume is not None:
        raise UsageError("--output does not go with --resume.", context)
    if from_round is not None and resume is None:
        raise UsageError("--from-round needs --resume.", context)
    if insecure_fixed_noise and resume is not None:
        raise UsageError("--insecure-fixed-noise does not go with --resume.", context)
    tree = None
    if config is not None or overrides:
        tree = _load(config or str(Path(resume or "") / "config.yaml"), overrides)

    from pkgllm.config.schema import Experiment
    from pkgllm.pipeline import train as jobs
    from pkgllm.pipeline.deployment import server as deployment
    from pkgllm.pipeline.privacy import is_deployed
    from pkgllm.pipeline.run_record import open_unfinished
    from pkgllm.pipeline.statement import privacy_statement
    from pkgllm.privacy.statements import read_guarantee
    from pkgllm.terminal import show_progress

    if resume is not None:
        path, tree = resume, open_unfinished(resume, tree)[1]
    else:
        assert tree is not None
        stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
        path = output or expanded(tree.output) / f"{Path(str(config)).stem}-{stamp}"
    progress = show_progress()
    echo(f"run folder: {path}", err=True)
    if isinstance(tree, Experiment) and is_deployed(tree):
        deployment.train_deployed(
            tree,
            path,
            progress,
            resume=resume is not None,
            from_round=from_round,
            keep=keep,
            insecure_fixed_noise=insecure_fixed_noise,
        )
        echo(f"the adapter is {path / 'adapter'}; the metrics are {path / 'metrics.jsonl'}")
        echo(privacy_statement(tree, read_guarantee(path)))
        echo("nothing is ranked, because the server has nobody's graph; see docs/deployment.md")
    elif resume is not None:
        _show(jobs.resume(path, progress, expected=tree, keep=keep, from_round=from_round))
    else:
        _show(
            jobs.train(tree, path, progress, keep=keep, insecure_fixed_noise=insecure_fixed_noise)
        )


@app.command(epilog=example("pkgllm evaluate runs/first --data other_people -o others"))
def evaluate(
    context: typer.Context,
    run: Annotated[Path, typer.Argument(metavar="RUN", hidden=True)],
    data: Annotated[
        Path | None,
        typer.Option(help="Rank the clients of this folder, in ReDial's format, instead."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="Folder to make for the results; the next number in RUN/evaluations if absent.",
        ),
    ] = None,
    protocol: Annotated[
        Literal["exact", "lists", "all", "legacy", "legacy-leak"],
        typer.Option(
            "--protocol",
            "-p",
            help="exact: rank the whole catalogue. lists: let the models write lists. all: both. "
            "The others give inflated numbers, to show how far: legacy scores the lists of an "
            "earlier evaluation in a published way, legacy-leak asks with the answers in the "
            "prompts.",
        ),
    ] = "exact",
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="Override one key of evaluation: evaluation.max_clients=null. Repeatable."
        ),
    ] = None,
    answers: Annotated[
        Path | None,
        typer.Option(
            help="The lists.jsonl that legacy scores; the newest in RUN/evaluations if absent."
        ),
    ] = None,
) -> None:
    """Evaluate a run again, on its own clients or on other people.

    RUN is the folder of a finished run.
    """
    if protocol != "legacy" and answers is not None:
        raise UsageError("--answers goes with --protocol legacy only.", context)
    if protocol == "legacy" and overrides:
        raise UsageError(
            "--set does not go with --protocol legacy, whose answers are written already.", context
        )
    from pkgllm.terminal import show_progress

    progress = show_progress()

    from pkgllm.pipeline import evaluate as evaluation_jobs

    if protocol == "legacy":
        _show(evaluation_jobs.rescore_answers(run, answers=answers, data=data, output=output))
        return
    for report in evaluation_jobs.evaluate_run(
        run, progress, data=data, output=output, protocol=protocol, overrides=overrides or []
    ):
        _show(report)


@app.command(epilog=example("pkgllm compare runs/fedkto runs/feddpo --metric mrr -o both.md"))
def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", hidden=True)],
    metrics: Annotated[
        list[str] | None,
        typer.Option("--metric", "-m", help="Such as mrr. Repeatable; hits@10 and mrr if absent."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="File to write as well, in Markdown or JSON."),
    ] = None,
) -> None:
    """Compare runs that were asked the same, and test differences.

    RUN... are the folders of finished runs, or of evaluations of them.
    """
    from pkgllm.pipeline import comparison
    from pkgllm.report.comparison import check_output, comparison_document, write_comparison
    from pkgllm.report.to_terminal import show

    if output is not None:
        check_output(output)
    results = comparison.compare(runs, metrics or comparison.COMPARED_METRICS)
    show(comparison_document(results))
    if output is not None:
        write_comparison(results, output)
        echo(f"\nwritten to {output}")


@app.command(epilog=example("pkgllm report runs/first -o first-report"))
def report(
    run: Annotated[Path, typer.Argument(metavar="RUN", hidden=True)],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder for the report; RUN/report if absent."),
    ] = None,
) -> None:
    """Write tables and plots of a run.

    RUN is the folder of a run, finished or not.
    """
    from pkgllm.pipeline.reporting import write_report

    written, missing = write_report(run, output)
    for line in missing:
        echo(f"not there: {line}")
    echo(f"report: {written}")


app.command("sweep", epilog=example("pkgllm sweep -c studies/aggregators.yaml -o runs/study"))(
    sweep
)


app.command(
    "recommend", epilog=example("pkgllm recommend --adapter runs/first --pkg me.jsonld --why")
)(recommend)


app.command(
    "chat", epilog=example('pkgllm chat --pkg me.jsonld --adapter runs/first -m "I loved Heat"')
)(chat)


@config_app.command("check", epilog=example("pkgllm config check mine.yaml --set seed=1"))
def config_check(file: ConfigArgument, overrides: SetOption = None) -> None:
    """Tell everything that is wrong with a configuration.

    CONFIG is a file, or the name of one in ./configs or of a preset.
    """
    _load(file, overrides)
    echo(f"{file}: good")


@config_app.command("show", epilog=example("pkgllm config show fedkto.yaml > mine.yaml"))
def config_show(file: ConfigArgument, overrides: SetOption = None) -> None:
    """Print a configuration with every default.

    CONFIG is a file, or the name of one in ./configs or of a preset.
    """
    from pkgllm.config.load import dump_config

    typer.echo(dump_config(_load(file, overrides)), nl=False)


@data_app.command("build", epilog=example("pkgllm data build -c quickstart.yaml -o built"))
def data_build(
    config: ConfigOption,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to make.")],
    overrides: SetOption = None,
) -> None:
    """Write every client's graph as JSON-LD, and the split."""
    tree = _load(config, overrides)
    from pkgllm.terminal import show_progress

    progress = show_progress()

    from pkgllm.pipeline import train as jobs

    population = jobs.build_data(tree, output, progress)
    echo(f"{len(population.splits)} graphs and the split are in {output}")
    for note in population.corpus.notes:
        echo(f"- {note}")


def _load(name: str, overrides: list[str] | None) -> "AnyExperiment":
    from pkgllm.config.load import load_any_config

    return load_any_config(name, overrides or [])


def _show(report: "Report") -> None:
    from pkgllm.report.to_terminal import show

    place = report.folder / report.name
    files = {"all tables": place.with_suffix(".md"), "as JSON": place.with_suffix(".json")}
    show(report.document, files)


def main() -> None:
    """Run a command; exit 0 when done, 1 when it cannot be done, 2 when called wrongly."""
    keep_interrupts()
    wait_briefly()
    try:
        code = app(prog_name="pkgllm", standalone_mode=False)
    except PkgllmError as error:
        _end(str(error), error.exit_code)
    except NoArgsIsHelpError as error:
        error.show()
        sys.exit(error.exit_code)
    except ClickException as error:
        _end(_usage(error), error.exit_code)
    except OSError as error:
        place = f": {error.filename}" if error.filename else ""
        _end(f"{error.strerror or error}{place}", 1)
    except (MemoryError, RuntimeError) as error:
        if not _out_of_memory(error):
            raise
        _end(
            "out of memory; lower evaluation.memory_gib, training.memory_gib, "
            "training.groups_per_step, prompt.max_tokens or adapter.lora_rank, or choose a smaller "
            "base model",
            1,
        )
    if code == _INTERRUPTED:
        _end("stopped; what was written stays", 1)
    sys.exit(code)


def _end(message: str, code: int) -> NoReturn:
    echo(f"pkgllm: {message}", err=True)
    sys.exit(code)


def _usage(error: ClickException) -> str:
    context = error.ctx if isinstance(error, UsageError) else None
    seen = f" See {context.command_path} --help." if context else ""
    return f"{error.format_message()}{seen}"


def _out_of_memory(error: BaseException) -> bool:
    # torch has a class of its own for a full GPU, and none for a full machine.
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or "can't allocate memory" in str(error)
    )
