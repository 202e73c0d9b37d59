"""The names that Flower does not make public and our grids cannot do without."""

from flwr.app import Error, Message
from flwr.common.constant import SUPERLINK_NODE_ID, ErrorCode
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

__all__ = [
    "GONE",
    "RUN_ID",
    "SUPERLINK_NODE_ID",
    "Run",
    "app_error",
    "become_server",
    "is_app_error",
    "set_message_id",
    "set_source",
]

RUN_ID = 1
"""An in-process run is alone in its process, so its number carries nothing."""

GONE = frozenset(
    {
        ErrorCode.MESSAGE_UNAVAILABLE,
        ErrorCode.REPLY_MESSAGE_UNAVAILABLE,
        ErrorCode.NODE_UNAVAILABLE,
        ErrorCode.CLIENT_APP_CRASHED,
    }
)
"""Codes of the errors that speak of a node which went away, and not of a client that failed."""


def become_server() -> None:
    """Let this process make messages, as Flower's runtimes do for the process of a ServerApp."""
    TaskIdentity.task_id = 1
    TaskIdentity.run_id = RUN_ID
    TaskIdentity.node_id = SUPERLINK_NODE_ID


def set_message_id(message: Message, message_id: str) -> None:
    """Give a message its id, as the SuperLink does for what passes through it."""
    message.metadata.__dict__["_message_id"] = message_id


def app_error(reason: str) -> Error:
    """Return the error that stands for an exception inside a ClientApp."""
    return Error(code=ErrorCode.CLIENT_APP_RAISED_EXCEPTION, reason=reason)


def is_app_error(error: Error) -> bool:
    """Say whether an error stands for an exception inside a ClientApp, and not around it."""
    return error.code == ErrorCode.CLIENT_APP_RAISED_EXCEPTION


def set_source(message: Message, node_id: int) -> None:
    """Let a message come from another node."""
    message.metadata.__dict__["_src_node_id"] = node_id
