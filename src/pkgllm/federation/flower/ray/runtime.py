"""Server and clients on Flower's simulation engine, whose clients are actors of Ray.

Ray belongs to one call: it is started and shut down here, its dashboard and usage reports are off,
and the folder of its logs, which may quote facts, is private and goes with it. With
``RAY_ADDRESS`` set, the call joins that cluster instead and leaves it as it was.
"""

import contextlib
import importlib.util
import io
import logging
import math
import os
import secrets
import shutil
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from pkgllm.errors import ConfigError, FederationError
from pkgllm.federation.flower.environment import QUIET_ENVIRONMENT
from pkgllm.federation.flower.ray.clients import ActorApp, ActorSettings, MakeClients
from pkgllm.federation.flower.ray.signals import RaySignals
from pkgllm.federation.flower.simulation_grid import SimulationGrid, Stopped
from pkgllm.federation.flower.transport import FlowerTransport
from pkgllm.federation.rounds import Rounds, run_rounds
from pkgllm.lm.adapter import AdapterState

logger = logging.getLogger(__name__)

_SHORT_ENOUGH = 16
"""Characters of a temporary folder with which the names of Ray's sockets fit into any system's."""


_PASSED_ON = ("FLWR_", "HF_", "OMP_NUM_THREADS", "PKGLLM_", "TRANSFORMERS_")


@dataclass(frozen=True, slots=True)
class RayResources:
    """What Ray has, and what one client takes of it while it trains."""

    cpus_per_client: float = 1.0
    gpus_per_client: float = 0.0
    cpus: int | None = None
    """Given to Ray; what it finds when absent."""
    gpus: int | None = None
    """Given to Ray; what it finds when absent."""


def check_ray() -> None:
    """Fail before any work where Ray is not installed.

    Raises:
        ConfigError: If it is not.
    """
    if importlib.util.find_spec("ray") is None:
        raise ConfigError(
            "mode.runtime ray: needs the package ray, which is not installed; install pkgllm[ray], "
            "or use mode.runtime.name=local"
        )


def run_on_ray(
    rounds: Rounds,
    make_clients: MakeClients,
    *,
    num_clients: int,
    resources: RayResources,
    log: Path,
) -> AdapterState:
    """Run rounds in this process with clients on Ray; return the last adapter.

    The server runs in a thread of its own, and so do its callbacks. Whatever it raises is raised
    here, when Ray is shut down; so are Ctrl-C and SIGTERM. A client whose actor dies has failed in
    that round, when it dies a second time with the same client, and the actor is started anew.

    Raises:
        ConfigError: If Ray is not installed, or not one client fits into what it has.
        FederationError: If the engine breaks down, or what the server raises.
    """
    check_ray()
    server = _Server(rounds, num_clients, log)
    threads = max(1, math.floor(resources.cpus_per_client))
    settings = ActorSettings(make_clients, threads=threads, log=log)
    with (
        RaySignals() as signals,
        _removed(log),
        contextlib.redirect_stdout(_DebugLog()),
        _ray(resources),
    ):
        signals.handle()
        _check_room(resources)
        with (
            server.stopped_at_the_end(),
            _flower_silent(),
            signals.end_simulation(server.stop),
        ):
            _simulate(server.flower_app, ActorApp(settings), num_clients, resources)
    return server.adapter()


class _DebugLog(io.TextIOBase):
    """Logs what Ray prints about its workers at level DEBUG; a round says why clients failed."""

    def write(self, text: str) -> int:
        """Log text that is not blank."""
        if text.strip():
            logger.debug("%s", text.rstrip())
        return len(text)


class _Server:
    """A server app that keeps its outcome; Flower would print and rename its exceptions."""

    def __init__(self, rounds: Rounds, num_clients: int, log: Path) -> None:
        self.flower_app = ServerApp()
        self._stopped = threading.Event()
        self._outcome: AdapterState | BaseException | None = None

        @self.flower_app.main()
        def main(grid: Grid, context: Context) -> None:
            try:
                own = SimulationGrid(grid, num_clients, self._stopped, log)
                self._outcome = run_rounds(FlowerTransport(own), rounds)
            except Stopped:
                pass
            except BaseException as error:
                self._outcome = error

    def stop(self) -> None:
        """End the server's thread at its next wait for clients."""
        self._stopped.set()

    @contextlib.contextmanager
    def stopped_at_the_end(self) -> Iterator[None]:
        """End the server's thread when the block is left, by whatever way."""
        try:
            yield
        finally:
            self.stop()

    def adapter(self) -> AdapterState:
        """Return the last adapter, or raise what the server raised."""
        if isinstance(self._outcome, BaseException):
            raise self._outcome
        if self._outcome is None:
            raise FederationError("Flower's simulation engine ended before the server had done")
        return self._outcome


def _simulate(
    server_app: ServerApp, client_app: ActorApp, num_clients: int, resources: RayResources
) -> None:
    from flwr.simulation import run_simulation

    try:
        run_simulation(
            server_app,
            client_app,
            num_supernodes=num_clients,
            backend_config={
                # Flower hands all of these on to Ray's actor. An actor that stayed dead, or that
                # refused while it is started anew, would take message after message and fail most
                # of the cohort.
                "client_resources": {
                    "num_cpus": resources.cpus_per_client,
                    "num_gpus": resources.gpus_per_client,
                    "max_restarts": -1,
                    "max_task_retries": 1,
                }
            },
        )
    except RuntimeError as error:
        cause = error.__cause__ or error
        reason = str(cause).partition("\n")[0]
        raise FederationError(
            f"Flower's simulation engine broke down: {type(cause).__name__}: {reason}"
        ) from error


@contextlib.contextmanager
def _ray(resources: RayResources) -> Iterator[None]:
    """Start Ray, or join the cluster of ``RAY_ADDRESS``; afterwards nothing of it is left."""
    joins = bool(os.environ.get("RAY_ADDRESS"))
    if joins and (resources.cpus is not None or resources.gpus is not None):
        raise ConfigError(
            "mode.runtime.cpus and mode.runtime.gpus describe a Ray that is started here, and "
            "RAY_ADDRESS names one that runs already; leave them out, or unset RAY_ADDRESS"
        )
    if not joins and "ray" not in sys.modules:
        # Ray listens on every interface, and whoever reaches it may run code. It reads these
        # variables when it is imported.
        os.environ.setdefault("RAY_AUTH_MODE", "token")
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    import ray

    folder = None if joins else _temporary_folder()
    try:
        _start(resources, folder)
        yield
    finally:
        ray.shutdown()
        for left in (folder, _flower_home()):
            if left:
                shutil.rmtree(left, ignore_errors=True)


def _start(resources: RayResources, folder: Path | None) -> None:
    import ray

    try:
        with warnings.catch_warnings():
            # About a future version, to every program that starts Ray.
            warnings.simplefilter("ignore", FutureWarning)
            ray.init(
                # Without an address Ray would join whatever Ray runs on the machine.
                "local" if folder else os.environ["RAY_ADDRESS"],
                num_cpus=resources.cpus,
                num_gpus=resources.gpus,
                include_dashboard=False if folder else None,
                logging_level=logging.ERROR,
                log_to_driver=False,
                # One below, because Ray opens its own folder to everybody.
                _temp_dir=str(folder / "r") if folder else None,
                runtime_env={"env_vars": _environment()},
            )
    except (OSError, RuntimeError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise FederationError(f"Ray cannot be started or reached: {reason}") from error


@contextlib.contextmanager
def _removed(path: Path) -> Iterator[None]:
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def _environment() -> dict[str, str]:
    """Return what actors do not inherit: this process's import path, elsewhere also variables."""
    passed_on = {
        name: value
        for name, value in os.environ.items()
        if name in QUIET_ENVIRONMENT or name.startswith(_PASSED_ON)
    }
    return {**passed_on, "PYTHONPATH": os.pathsep.join(sys.path)}


def _temporary_folder() -> Path:
    short = len(tempfile.gettempdir()) <= _SHORT_ENOUGH
    return Path(tempfile.mkdtemp(prefix="pkgllm-ray-", dir=None if short else "/tmp"))


def _flower_home() -> Path | None:
    """Return the folder in which Flower notes that it was used, where it is ours."""
    home = Path(os.environ["FLWR_HOME"])
    return home if home.name.startswith("pkgllm-flower-") else None


def _check_room(resources: RayResources) -> None:
    import ray

    nodes = ray.nodes()  # type: ignore[no-untyped-call]
    machines = [node["Resources"] for node in nodes if node["Resources"]]
    for machine in machines:
        if (
            machine.get("CPU", 0) >= resources.cpus_per_client
            and machine.get("GPU", 0) >= resources.gpus_per_client
        ):
            return
    has = "; ".join(f"{m.get('CPU', 0):g} CPUs and {m.get('GPU', 0):g} GPUs" for m in machines)
    raise ConfigError(
        f"mode.runtime: a client takes cpus_per_client {resources.cpus_per_client:g} and "
        f"gpus_per_client {resources.gpus_per_client:g}, and no machine of Ray has as much: {has}; "
        "lower them"
    )


@contextlib.contextmanager
def _flower_silent() -> Iterator[None]:
    """Keep Flower from printing tracebacks of what the round tells, unless it was asked to."""
    logger = logging.getLogger("flwr")
    before = logger.level
    if os.environ["FLWR_LOG_LEVEL"] == QUIET_ENVIRONMENT["FLWR_LOG_LEVEL"]:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)
