"""The names that Flower does not make public and an in-process grid cannot do without."""

from flwr.app import Error, Message
from flwr.common.constant import SUPERLINK_NODE_ID, ErrorCode
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

__all__ = [
    "RUN_ID",
    "SUPERLINK_NODE_ID",
    "Run",
    "app_error",
    "become_server",
    "is_app_error",
    "set_message_id",
]

RUN_ID = 1
"""An in-process run is alone in its process, so its number carries nothing."""


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
