"""The client's side of a real federation: a SuperNode, and the process that answers for it.

Flower's SuperNode would run whatever app the server sends. Here apps run in another
process (``--isolation process``), which is this one: of what the server sends, only messages are
read, never code. The process stays, so the base model is loaded once.
"""

import contextlib
import logging
import time
from collections.abc import Callable
from pathlib import Path

import httpx
from flwr.clientapp import ClientApp
from flwr.common.constant import SubStatus
from flwr.proto.fleet_pb2 import DeactivateNodeRequest
from flwr.proto.runtime_pb2 import AcquireTaskRequest, SendTaskHeartbeatRequest
from flwr.supercore.constant import TaskType
from flwr.supercore.heartbeat import HeartbeatSender
from flwr.supercore.interceptors import (
    RuntimeTokenHttpInterceptor,
    RuntimeVersionHttpInterceptor,
    SuperExecAuthHttpInterceptor,
)
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor
from flwr.supernode.runtime.run_clientapp import (
    pull_task_input,
    push_message,
    push_task_output,
)

from pkgllm.federation.flower.deployment.certificates import read_private_key
from pkgllm.federation.flower.records import CLIENT_ID

logger = logging.getLogger(__name__)

ACQUIRE_TASK = frozenset({"/flwr.proto.Runtime/AcquireTask"})
"""The one call that needs the secret shared with those who run apps."""

_POLL_SECONDS = 0.5


def answer_messages(
    app: ClientApp,
    *,
    client: str,
    address: str,
    secret: bytes,
    alive: Callable[[], bool],
    on_node: Callable[[int], None],
) -> None:
    """Answer the messages of a SuperNode, one after the other, while it is alive."""
    signed = SuperExecAuthHttpInterceptor(master_secret=secret, protected_methods=ACQUIRE_TASK)
    with _runtime(address, signed) as runtime:
        wanted = AcquireTaskRequest(supported_task_types=[TaskType.CLIENT_APP])
        while alive():
            try:
                task = runtime.AcquireTask(wanted)
            except httpx.TransportError:
                # It has only just started, or has just ended.
                task = None
            if task is not None and task.token:
                _answer(app, client, address, task.token, on_node)
            else:
                time.sleep(_POLL_SECONDS)


def say_goodbye(node_id: int, superlink: str, root_certificates: Path, key: Path) -> None:
    """Tell the SuperLink that an earlier life of this SuperNode is over.

    One that was killed could not, and the SuperLink takes it for alive until its heartbeats have
    been missing for a minute. Until then the next life would not be let in. Where the SuperLink
    does not answer, or knows better, nothing happens.
    """
    private = read_private_key(key)
    with (
        contextlib.suppress(httpx.HTTPError),
        FleetHttpClient.from_server_address(
            superlink,
            insecure=False,
            root_certificates=root_certificates.read_bytes(),
            interceptors=[
                RuntimeVersionHttpInterceptor(component_name="SuperNode"),
                NodeAuthHttpInterceptor(private, private.public_key()),
            ],
        ) as client,
    ):
        client.DeactivateNode(DeactivateNodeRequest(node_id=node_id))


def _runtime(
    address: str, interceptor: RuntimeTokenHttpInterceptor | SuperExecAuthHttpInterceptor
) -> RuntimeHttpClient:
    return RuntimeHttpClient.from_server_address(
        address,
        insecure=True,
        root_certificates=None,
        interceptors=[RuntimeVersionHttpInterceptor(component_name="flwr-clientapp"), interceptor],
    )


def _answer(
    app: ClientApp, client: str, address: str, token: str, on_node: Callable[[int], None]
) -> None:
    with _runtime(address, RuntimeTokenHttpInterceptor(token)) as runtime:
        heartbeat = HeartbeatSender(lambda: _beat(runtime))
        heartbeat.start()
        try:
            message, context, _, _ = pull_task_input(runtime)
            context.node_config[CLIENT_ID] = client
            on_node(context.node_id)
            reply = app(message, context)
            push_message(runtime, reply, context)
            push_task_output(runtime, context, SubStatus.COMPLETED, "")
        except Exception as error:
            # The SuperNode has gone, the run is over, or the answer came too late for it. Flower
            # has many exceptions for that. The server asks again if it wants to.
            logger.warning("a message was not answered: %s: %s", type(error).__name__, error)
        finally:
            heartbeat.stop()


def _beat(runtime: RuntimeHttpClient) -> bool:
    # Flower's own would interrupt this process, which is to answer further messages.
    with contextlib.suppress(httpx.HTTPError):
        runtime.SendTaskHeartbeat(SendTaskHeartbeatRequest())
    return True
