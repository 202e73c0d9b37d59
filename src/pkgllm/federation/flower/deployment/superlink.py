"""The server's side of a real federation: what this process asks of a SuperLink.

A run is started, and its server's side is run here, in this process, over Flower's own grid. The
app that the SuperLink wants for a run has no code in it: neither it nor a SuperNode of ours runs
what comes over the network.
"""

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Protocol

import httpx
from flwr.cli.build import build_fab_from_files
from flwr.common.constant import SubStatus
from flwr.common.serde import fab_to_proto, run_from_proto
from flwr.proto.control_pb2 import ListNodesRequest, RegisterNodeRequest, StartRunRequest
from flwr.proto.node_pb2 import NodeInfo
from flwr.proto.runtime_pb2 import (
    AcquireTaskRequest,
    PullTaskInputRequest,
    PushTaskOutputRequest,
)
from flwr.supercore.constant import TaskType
from flwr.supercore.control import ControlHttpClient
from flwr.supercore.error import ApiErrorCode, FlowerError
from flwr.supercore.fab import Fab
from flwr.supercore.heartbeat import HeartbeatSender, make_task_heartbeat_fn_http
from flwr.supercore.interceptors import (
    RuntimeTokenHttpInterceptor,
    RuntimeVersionHttpInterceptor,
    SuperExecAuthHttpInterceptor,
)
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.supercore.task_identity import TaskIdentity
from flwr.superlink.grid import HttpGrid

from pkgllm.errors import FederationError
from pkgllm.federation.flower.deployment.retrying_grid import Node
from pkgllm.federation.flower.deployment.supernode import ACQUIRE_TASK

_APP = b"""
[project]
name = "pkgllm"
version = "1.0.0"
description = "A name for a run. Both sides run the code that they have installed."
license = "Apache-2.0"

[tool.flwr.app]
publisher = "pkgllm"

[tool.flwr.app.components]
serverapp = "pkgllm:server"
clientapp = "pkgllm:client"
"""

_POLL_SECONDS = 0.5

_PATIENCE_SECONDS = 120.0
"""How long a SuperLink may be out of reach in a run."""


@dataclass(frozen=True, slots=True)
class SuperLink:
    """A SuperLink, and how it proves that it is the right one."""

    address: str
    """Host and port."""
    root_certificates: Path
    """Certificate of the authority that signed its own."""

    def wait(self, seconds: float, *, alive: Callable[[], bool] = lambda: True) -> None:
        """Return as soon as it answers.

        Args:
            seconds: How long to wait at most.
            alive: Whether there is still something to wait for.

        Raises:
            FederationError: If it does not, or its certificate is not what it must be.
        """
        deadline = time.monotonic() + seconds
        while True:
            try:
                with self._control() as control:
                    control.ListNodes(ListNodesRequest())
                return
            except httpx.TransportError as error:
                if time.monotonic() > deadline or not alive() or "certificate" in str(error):
                    raise self._unreachable(error) from error
            time.sleep(_POLL_SECONDS)

    def register(self, public_key: bytes) -> None:
        """Let a client in that proves to hold the private key; again is no error.

        Args:
            public_key: In PEM.

        Raises:
            FederationError: If the SuperLink refuses.
        """
        try:
            with self._control() as control:
                control.RegisterNode(RegisterNodeRequest(public_key=public_key))
        except httpx.HTTPStatusError as error:
            known = FlowerError.from_json(error.response.text)
            if known is None or known.code != ApiErrorCode.PUBLIC_KEY_ALREADY_IN_USE:
                raise self._refused("to register a client", error) from error
        except httpx.TransportError as error:
            raise self._unreachable(error) from error

    @contextlib.contextmanager
    def server_side(self, secret: bytes) -> Iterator[HttpGrid]:
        """Start a run and be its server until the block is left.

        Left by an exception, the run counts as failed, by Ctrl-C as stopped.

        Args:
            secret: What the SuperLink shares with those who may run the server's side.

        Yields:
            Flower's grid.

        Raises:
            FederationError: If the SuperLink cannot be reached or refuses.
        """
        try:
            run_id = self._start_run()
            token = self._take_on(run_id, secret)
        except httpx.HTTPStatusError as error:
            raise self._refused("to start a run", error) from error
        except httpx.TransportError as error:
            raise self._unreachable(error) from error
        grid = HttpGrid(
            self.address, root_certificates=self.root_certificates.read_bytes(), token=token
        )
        grid._retry_invoker.max_time = _PATIENCE_SECONDS
        client = grid._runtime_client
        heartbeat = HeartbeatSender(make_task_heartbeat_fn_http(client))
        heartbeat.start()
        status = SubStatus.FAILED
        try:
            task = client.PullTaskInput(PullTaskInputRequest())
            TaskIdentity.task_id = task.task_id
            TaskIdentity.run_id = task.run.run_id
            TaskIdentity.node_id = task.context.node_id
            grid.set_run(run_from_proto(task.run))
            yield grid
            status = SubStatus.COMPLETED
        except KeyboardInterrupt:
            status = SubStatus.STOPPED
            raise
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error
        finally:
            grid._retry_invoker.max_tries = 1
            with contextlib.suppress(httpx.HTTPError):
                client.PushTaskOutput(PushTaskOutputRequest(sub_status=status))
            heartbeat.stop()
            grid.close()

    def _start_run(self) -> int:
        content, _ = build_fab_from_files({"pyproject.toml": _APP})
        app = Fab(sha256(content).hexdigest(), content, {})
        with self._control() as control:
            started = control.StartRun(StartRunRequest(fab=fab_to_proto(app)))
        return int(started.run_id)

    def _take_on(self, run_id: int, secret: bytes) -> str:
        """Take the server's side of a run from the SuperLink, and refuse that of other runs."""
        signed = SuperExecAuthHttpInterceptor(master_secret=secret, protected_methods=ACQUIRE_TASK)
        with self._runtime(signed) as client:
            while True:
                answer = client.AcquireTask(
                    AcquireTaskRequest(supported_task_types=[TaskType.SERVER_APP])
                )
                if answer.token and answer.task.run_id == run_id:
                    return str(answer.token)
                if not answer.token:
                    time.sleep(_POLL_SECONDS)
                    continue
                # Somebody else's code, which nobody here runs.
                with self._runtime(RuntimeTokenHttpInterceptor(answer.token)) as other:
                    other.PushTaskOutput(
                        PushTaskOutputRequest(
                            sub_status=SubStatus.FAILED,
                            details="this SuperLink serves pkgllm train only",
                        )
                    )

    def _control(self) -> ControlHttpClient:
        return ControlHttpClient.from_server_address(
            self.address,
            insecure=False,
            root_certificates=self.root_certificates.read_bytes(),
            interceptors=[RuntimeVersionHttpInterceptor(component_name="flwr CLI")],
        )

    def _runtime(
        self, interceptor: RuntimeTokenHttpInterceptor | SuperExecAuthHttpInterceptor
    ) -> RuntimeHttpClient:
        return RuntimeHttpClient.from_server_address(
            self.address,
            insecure=False,
            root_certificates=self.root_certificates.read_bytes(),
            interceptors=[
                RuntimeVersionHttpInterceptor(component_name="flwr-serverapp"),
                interceptor,
            ],
        )

    def _unreachable(self, error: Exception) -> FederationError:
        return FederationError(
            f"SuperLink {self.address}: cannot be reached: {error}; start it with pkgllm "
            "federation server, and name it by a host that its certificate holds"
        )

    def _refused(self, what: str, error: httpx.HTTPStatusError) -> FederationError:
        known = FlowerError.from_json(error.response.text)
        reason = known.message if known is not None else f"status {error.response.status_code}"
        return FederationError(f"SuperLink {self.address}: refused {what}: {reason}")


class KnowsNodes(Protocol):
    """A grid of Flower's that can tell more of a node than its id."""

    def get_nodes(self) -> Iterable[NodeInfo]:
        """Return the nodes that are connected."""
        ...


def connected_nodes(grid: KnowsNodes, roster: Mapping[str, bytes]) -> tuple[Node, ...]:
    """Return the SuperNodes that are connected, each known by its key; strangers are left out.

    Flower lets anybody register a key who can reach the SuperLink; the roster does not.

    Args:
        grid: A run's grid.
        roster: The public key, in PEM, of each client that may take part.
    """
    client_by_key = {key: client for client, key in roster.items()}
    return tuple(
        Node(info.node_id, client_by_key[info.public_key], info.last_activated_at)
        for info in grid.get_nodes()
        if info.public_key in client_by_key
    )
