"""The long-running commands of a federation: the SuperLink, and one client."""

import contextlib
import fcntl
import shlex
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from pkgllm.errors import FederationError
from pkgllm.federation.flower.client_app import CohortApp
from pkgllm.federation.flower.deployment.certificates import (
    AUTHORITY_CERTIFICATE,
    CLIENT_KEY,
    EXECUTOR_SECRET,
    SERVER_CERTIFICATE,
    SERVER_KEY,
    read_private_key,
    read_public_keys,
    read_roster,
    write_secret,
)
from pkgllm.federation.flower.deployment.superlink import SuperLink
from pkgllm.federation.flower.deployment.supernode import answer_messages, say_goodbye
from pkgllm.federation.flower.process import end_flower, start_flower
from pkgllm.files import read_bytes, write_atomically

_NODE = "node"
"""File with the id that the SuperLink gave to this client's SuperNode."""

_STARTUP_SECONDS = 120.0
_POLL_SECONDS = 1.0
_RETRY_SECONDS = 5.0
_PATIENCE_SECONDS = 150.0
"""Longer than a SuperLink takes a killed SuperNode for alive."""

Log = Callable[[str], None]


def serve(keys: Path, *, host: str, port: int, log: Log) -> None:
    """Start a SuperLink and let the clients of the roster in, until it ends.

    Raises:
        FederationError: If it ends by itself.
    """
    read_roster(keys)
    for name in (AUTHORITY_CERTIFICATE, SERVER_CERTIFICATE, SERVER_KEY, EXECUTOR_SECRET):
        read_bytes(keys / name)
    command = [
        *("flower-superlink", "--host", host, "--port", str(port)),
        *("--ssl-ca-certfile", str(keys / AUTHORITY_CERTIFICATE)),
        *("--ssl-certfile", str(keys / SERVER_CERTIFICATE)),
        *("--ssl-keyfile", str(keys / SERVER_KEY), "--enable-supernode-auth"),
        *("--isolation", "process", "--superexec-auth-secret-file", str(keys / EXECUTOR_SECRET)),
        "--disable-runtime-dependency-installation",
    ]
    nearby = "127.0.0.1" if host in ("0.0.0.0", "::") else host
    link = SuperLink(f"{nearby}:{port}", keys / AUTHORITY_CERTIFICATE)
    with _flower(command, log) as process:
        link.wait(_STARTUP_SECONDS, alive=partial(_runs, process))
        let_in: set[bytes] = set()
        reported: set[str] = set()
        while _runs(process):
            # Nothing that is copied into the folder, or is refused, may end what others use.
            keys_now, faults = read_public_keys(keys)
            before = len(let_in)
            for client, key in keys_now.items():
                try:
                    if key not in let_in:
                        link.register(key)
                        let_in.add(key)
                except FederationError as error:
                    faults.append(f"client {client}: {error}")
            for fault in sorted(set(faults) - reported):
                log(f"warning: {fault}; it is left out")
            reported = set(faults)
            if len(let_in) > before:
                log(f"{host}:{port} is up; {len(let_in)} clients may connect")
            time.sleep(_POLL_SECONDS)
        raise FederationError(f"the SuperLink ended with status {process.returncode}")


def take_part(
    client: str,
    make_app: Callable[[], CohortApp],
    *,
    folder: Path,
    private: Path,
    superlink: str,
    log: Log,
) -> None:
    """Run one client: a SuperNode, and this process, which answers for it.

    Args:
        client: Its id.
        make_app: Loads what answers, once no other process answers for the client.
        folder: The client's folder, with its key and the authority's certificate.
        private: The folder of what nobody else may read.
        superlink: Host and port of the SuperLink.
        log: Called with the command, and when the client is ready.

    Raises:
        FederationError: If the SuperLink does not let it in.
        PkgllmError: If the key or the certificate cannot be read.
    """
    key, certificate = folder / CLIENT_KEY, folder / AUTHORITY_CERTIFICATE
    read_private_key(key)
    read_bytes(certificate)
    remembered, secret_file = private / _NODE, private / "executor.secret"
    with _only_process(private / "lock"):
        app = make_app().flower_app
        log(f"client {client} is ready")
        in_touch_at = time.monotonic()

        def on_node(node_id: int) -> None:
            nonlocal in_touch_at
            in_touch_at = time.monotonic()
            write_atomically(remembered, str(node_id))

        while time.monotonic() - in_touch_at < _PATIENCE_SECONDS:
            if (node_id := _read_node(remembered)) is not None:
                say_goodbye(node_id, superlink, certificate, key)
            port = _free_port()
            command = [
                *("flower-supernode", "--superlink", superlink, "--root-certificates"),
                *(str(certificate), "--auth-supernode-private-key", str(key)),
                *("--isolation", "process", "--port", str(port)),
                *("--superexec-auth-secret-file", str(secret_file)),
            ]
            secret = write_secret(secret_file)
            started = time.monotonic()
            with _flower(command, log, FLWR_HOME=str(private / "flower")) as process:
                answer_messages(
                    app,
                    client=client,
                    address=f"127.0.0.1:{port}",
                    secret=secret,
                    alive=partial(_runs, process),
                    on_node=on_node,
                )
            if time.monotonic() - started > _PATIENCE_SECONDS:
                # It was connected for long, or waited for a SuperLink that was not there.
                in_touch_at = time.monotonic()
            time.sleep(_RETRY_SECONDS)
    raise FederationError(
        f"client {client}: {superlink} does not let it in; see above what its SuperNode says, "
        "and that client.pub of this folder is among the clients of the server"
    )


def _read_node(path: Path) -> int | None:
    """Return the node id of this client's last life; None where it is not known."""
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


@contextlib.contextmanager
def _only_process(lock: Path) -> Iterator[None]:
    """Let no second process answer for the same client; the lock ends with the process."""
    with lock.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise FederationError(
                f"{lock.parent.parent}: another process answers for this client already"
            ) from error
        yield


@contextlib.contextmanager
def _flower(
    command: Sequence[str], log: Log, **environment: str
) -> Iterator["subprocess.Popen[bytes]"]:
    log(shlex.join(command))
    process = start_flower(command, environment)
    try:
        yield process
    finally:
        end_flower(process)


def _runs(process: "subprocess.Popen[bytes]") -> bool:
    return process.poll() is None


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
