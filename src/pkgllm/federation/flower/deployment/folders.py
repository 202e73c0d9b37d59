"""Make what a federation starts with: certificates, keys, and a folder for each client."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from pkgllm.corpora.catalogue_file import CATALOGUE
from pkgllm.corpora.clients import graph_file
from pkgllm.errors import ConfigError, DataError, RunError
from pkgllm.federation.flower.deployment.certificates import CLIENTS, folder_name, write_keys
from pkgllm.files import cannot
from pkgllm.runs.records import RecordedSplit, read_record

CONFIG = "config.yaml"

OWN_HOSTS = ("127.0.0.1", "localhost")
"""Under these the server is reached on its own machine."""


def write_federation_keys(
    folder: Path, *, hosts: Sequence[str], clients: Sequence[str], built: Path | None
) -> tuple[str, ...]:
    """Make certificates and keys, and with built data a whole folder for each client.

    The catalogue goes to the server as well, which may make public prompts of it.

    Args:
        folder: Folder to make.
        hosts: Names and addresses of the server, beside this machine's own.
        clients: The clients' ids; with built data all that train, if none is named.
        built: What ``pkgllm data build`` wrote.

    Returns:
        The clients.

    Raises:
        PkgllmError: If a client has no graph there, or a file cannot be written.
    """
    training = _training_clients(built) if built is not None else ()
    named = tuple(dict.fromkeys(clients)) or training
    if not named:
        raise ConfigError("--client ID or --built FOLDER must be given, to know the clients")
    unknown = [client for client in named if client not in training]
    if built is not None and unknown:
        raise ConfigError(f"--client {unknown[0]}: must be a client that trains in {built}")
    write_keys(folder, hosts=(*OWN_HOSTS, *hosts), clients=named)
    if built is not None:
        _copy(built / CATALOGUE, folder / "server" / CATALOGUE)
        for client in named:
            _fill(folder / CLIENTS / folder_name(client), built, client)
    return named


def _fill(folder: Path, built: Path, client: str) -> None:
    """Put a client's graph into its folder, with what is the same for all."""
    _copy(graph_file(built, client), folder / "graph.jsonld")
    for name in (CONFIG, CATALOGUE):
        _copy(built / name, folder / name)


def _copy(source: Path, target: Path) -> None:
    try:
        shutil.copyfile(source, target)
        target.chmod(0o600)
    except OSError as error:
        raise cannot("copy", Path(error.filename or target), error) from error


def _training_clients(built: Path) -> tuple[str, ...]:
    try:
        clients = read_record(built / "split.json", RecordedSplit).clients
    except RunError as error:
        raise DataError(
            f"--built {built}: must be what pkgllm data build wrote: {error}"
        ) from error
    return tuple(sorted(name for name, client in clients.items() if client.seen_in_training))
