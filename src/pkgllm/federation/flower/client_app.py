"""The clients' side as Flower knows it: messages in, messages out."""

import logging
from collections.abc import Sequence

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from pkgllm.federation.clients import LocalClients
from pkgllm.federation.flower.records import (
    CLIENT_ID,
    client_reply,
    failure_reply,
    read_instructions,
    update_reply,
)
from pkgllm.federation.messages import Update

logger = logging.getLogger(__name__)


class CohortApp:
    """Answers the messages of many clients together, and, as a Flower app, those of one.

    Which client a node is stands in its ``client-id``. An exception is answered with its type
    only. The text is logged here, with the clients, because it may quote a fact or a prompt.
    """

    def __init__(self, clients: LocalClients) -> None:
        self._clients = clients
        self._flower_app = self._make_flower_app()

    @property
    def flower_app(self) -> ClientApp:
        """Flower's app for one client: :meth:`answer` with one message, and who the client is."""
        return self._flower_app

    def answer(self, messages: Sequence[Message], contexts: Sequence[Context]) -> list[Message]:
        """Train the addressed clients and return their replies, in order of the messages.

        What cannot be read or sent fails its own client.

        Raises:
            ValueError: If there are two messages for one client.
            KeyError: If the trainer leaves a client out.
        """
        clients = [_client(context) for context in contexts]
        if len(set(clients)) != len(messages):
            raise ValueError(
                f"messages must be for different clients, got {len(messages)} for "
                f"{len(set(clients))}"
            )
        asked, outcomes = {}, dict[str, Update | Exception]()
        for client, instruction in zip(clients, read_instructions(messages), strict=True):
            if isinstance(instruction, Exception):
                outcomes[client] = instruction
            else:
                asked[client] = instruction
        outcomes |= self._clients.train(asked)
        # Each adapter is let go as soon as it is written into its reply.
        return [
            _reply(message, client, outcomes.pop(client))
            for message, client in zip(messages, clients, strict=True)
        ]

    def _make_flower_app(self) -> ClientApp:
        app = ClientApp()

        @app.train()
        def train(message: Message, context: Context) -> Message:
            (reply,) = self.answer([message], [context])
            return reply

        @app.query()
        def query(message: Message, context: Context) -> Message:
            return client_reply(message, _client(context))

        return app


def logged_failure(message: Message, client: str, error: Exception) -> Message:
    """Log why a client failed, and return the reply that tells the exception's type alone."""
    logger.warning("client %s failed: %s: %s", client, type(error).__name__, error)
    logger.debug("client %s failed here:", client, exc_info=error)
    return failure_reply(message, client, error)


def _reply(message: Message, client: str, outcome: Update | Exception) -> Message:
    try:
        if isinstance(outcome, Exception):
            raise outcome
        return update_reply(message, outcome)
    except Exception as error:
        return logged_failure(message, client, error)


def _client(context: Context) -> str:
    return str(context.node_config[CLIENT_ID])
