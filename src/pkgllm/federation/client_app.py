"""The client's side: train on what the server sent, send the update back."""

import logging

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from pkgllm.federation.records import (
    CLIENT_ID,
    Weighting,
    client_reply,
    failure_reply,
    read_instruction,
    update_reply,
)
from pkgllm.training.local import LocalTrainer

logger = logging.getLogger(__name__)


def make_client_app(
    trainer: LocalTrainer, *, weighting: Weighting, report_private_metrics: bool
) -> ClientApp:
    """Return Flower's app for a client; which client it is stands in its node's ``client-id``.

    An exception of the trainer is answered with its type only. The text is logged here, on the
    client, because it may quote a fact or a prompt.

    Args:
        trainer: Trains a client from a received adapter.
        weighting: ``uniform`` sends the weight 1, ``examples`` the client's number of groups.
        report_private_metrics: Whether the number of groups and the loss are sent as well.

    Raises:
        ValueError: If ``examples`` would send a private count without ``report_private_metrics``.
    """
    if weighting == "examples" and not report_private_metrics:
        raise ValueError(
            "weighting 'examples' sends each client's number of groups, which is private; "
            "set report_private_metrics or use weighting 'uniform'"
        )
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        client = str(context.node_config[CLIENT_ID])
        try:
            asked = read_instruction(message)
            trained = trainer(
                client,
                asked.adapter,
                round_num=asked.round_num,
                learning_rate=asked.learning_rate,
            )
            return update_reply(
                message,
                trained,
                weighting=weighting,
                report_private_metrics=report_private_metrics,
            )
        except Exception as error:
            logger.warning("client %s failed: %s: %s", client, type(error).__name__, error)
            logger.debug("client %s failed here:", client, exc_info=error)
            return failure_reply(message, client, error)

    @app.query()
    def query(message: Message, context: Context) -> Message:
        return client_reply(message, str(context.node_config[CLIENT_ID]))

    return app
