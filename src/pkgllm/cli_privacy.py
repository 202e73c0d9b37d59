"""The commands of ``pkgllm privacy``."""

import typer

from pkgllm.cli_options import ConfigOption, SetOption, example

privacy_app = typer.Typer(help="Look at what privacy costs.", no_args_is_help=True)


@privacy_app.callback()
def _root() -> None:
    # Without it typer would make the only command the whole of ``pkgllm privacy``.
    pass


@privacy_app.command(
    epilog=example("pkgllm privacy plan -c mine.yaml --set privacy.target_epsilon=3")
)
def plan(config: ConfigOption, overrides: SetOption = None) -> None:
    """Tell the epsilon of a whole run, and how loud the noise is, without training."""
    from rich.console import Console

    from pkgllm.config.load import load_config

    tree = load_config(config, overrides or [])

    from pkgllm.experiment.privacy_plan import plan_privacy
    from pkgllm.privacy.statements import statement
    from pkgllm.report.privacy import plan_remarks, plan_tables
    from pkgllm.report.tables import remarks_table

    found = plan_privacy(tree)
    console = Console()
    console.print(statement(found.guarantee), style="bold", highlight=False, markup=False)
    for table in plan_tables(found):
        console.print(table)
    console.print()
    console.print(remarks_table(plan_remarks(found)))
