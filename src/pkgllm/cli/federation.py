"""The commands of a federation whose clients are on machines of their own."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from pkgllm.cli.options import example
from pkgllm.cli.output import echo

federation_app = typer.Typer(
    help="Train with clients on machines of their own.", no_args_is_help=True
)


@federation_app.command(
    "keys", epilog=example("pkgllm federation keys --built built -o federation")
)
def keys(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to make.")],
    hosts: Annotated[
        list[str] | None,
        typer.Option("--host", help="Name or address of the server, beside 127.0.0.1. Repeatable."),
    ] = None,
    clients: Annotated[
        list[str] | None,
        typer.Option("--client", help="Id of a client. Repeatable."),
    ] = None,
    built: Annotated[
        Path | None,
        typer.Option(
            help="What pkgllm data build wrote, to fill the clients' folders; all that train if "
            "no --client is given."
        ),
    ] = None,
) -> None:
    """Make the server's certificate, and a key for each client."""
    from pkgllm.federation.flower.deployment.folders import write_federation_keys

    keyed = write_federation_keys(output, hosts=hosts or [], clients=clients or [], built=built)
    echo(f"the server's folder is {output / 'server'}")
    echo(f"the folders of {len(keyed)} clients are in {output / 'clients'}")


@federation_app.command(
    "server", epilog=example("pkgllm federation server federation/server --host 0.0.0.0")
)
def server(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", hidden=True)],
    host: Annotated[str, typer.Option(help="Address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen at.")] = 9093,
) -> None:
    """Run the SuperLink, which carries the messages, until it is stopped.

    FOLDER is the server's folder, which pkgllm federation keys makes.
    """
    from pkgllm.federation.flower.deployment.processes import serve

    serve(folder, host=host, port=port, log=_log)


@federation_app.command(
    "client",
    epilog=example("pkgllm federation client federation/clients/1"),
)
def client(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", hidden=True)],
    superlink: Annotated[
        str, typer.Option(help="Host and port of the SuperLink.")
    ] = "127.0.0.1:9093",
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="Override one key of config.yaml: base_model.device=cpu. Repeatable."
        ),
    ] = None,
) -> None:
    """Run one client, which trains on its own graph when asked, until it is stopped.

    FOLDER is the client's folder: its graph, key, certificate, configuration and catalogue.
    """
    from pkgllm.federation.flower.deployment.processes import take_part
    from pkgllm.pipeline.deployment.client_folder import ClientFolder
    from pkgllm.terminal import show_progress

    own = ClientFolder(folder, overrides or [])
    take_part(
        own.client,
        lambda: own.make_app(show_progress(), _log),
        folder=folder,
        private=own.private,
        superlink=superlink,
        log=_log,
    )


def _log(line: str) -> None:
    echo(line)
    # A service's output is a pipe, in which lines would wait for each other.
    sys.stdout.flush()
