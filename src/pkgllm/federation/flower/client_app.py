"""The clients' side: train on what the server sent, send the updates back."""

import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from pkgllm.errors import FederationError
from pkgllm.federation.algorithms.client_controls import ClientControls
from pkgllm.federation.client_noise import ClientNoise
from pkgllm.federation.flower.records import (
    CLIENT_ID,
    Instruction,
    Weighting,
    client_reply,
    failure_reply,
    read_instructions,
    update_reply,
)
from pkgllm.lm.adapter import AdapterState
from pkgllm.training.local import CohortTrainer, TrainedClient

logger = logging.getLogger(__name__)

_Terms = tuple[int, float, float, float | None]


class CohortApp:
    """Answers the messages of many clients together, and, as a Flower app, those of one.

    Which client a node is stands in its ``client-id``. An exception is answered with its type
    only. The text is logged here, with the clients, because it may quote a fact or a prompt.

    Args:
        trainer: Trains clients from the adapters they received.
        weighting: ``uniform`` sends the weight 1, ``examples`` the client's number of groups.
        report_private_metrics: Whether the number of groups and the loss are sent as well.
        controls: Clients' control variates, for a server that aggregates with SCAFFOLD.
        noise: What protects every update before it is a message, where the server counts on it.

    Raises:
        ValueError: If ``examples`` would send a private count without ``report_private_metrics``.
    """

    def __init__(
        self,
        trainer: CohortTrainer,
        *,
        weighting: Weighting,
        report_private_metrics: bool,
        controls: ClientControls | None = None,
        noise: ClientNoise | None = None,
    ) -> None:
        if weighting == "examples" and not report_private_metrics:
            raise ValueError(
                "weighting 'examples' sends each client's number of groups, which is private; "
                "set report_private_metrics or use weighting 'uniform'"
            )
        self._trainer = trainer
        self._weighting: Weighting = weighting
        self._report_private_metrics = report_private_metrics
        self._controls = controls
        self._noise = noise
        self._flower_app = self._make_flower_app()

    @property
    def flower_app(self) -> ClientApp:
        """Flower's app for one client: :meth:`answer` with one message, and who the client is."""
        return self._flower_app

    def answer(self, messages: Sequence[Message], contexts: Sequence[Context]) -> list[Message]:
        """Train the addressed clients and return their replies, in order of the messages.

        Clients of the same round, learning rate, proximal term and KL baseline train in one call of
        the trainer. Those that received equal adapters share one object, which a trainer must not
        change. What cannot be read or sent fails its own client; what the trainer raises fails the
        clients of that call.

        Args:
            messages: Instructions to train, at most one for each client.
            contexts: The addressed clients' contexts, in the same order.

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
        outcomes: dict[str, TrainedClient | Exception] = {}
        calls: defaultdict[_Terms, dict[str, Instruction]] = defaultdict(dict)
        for client, asked in zip(clients, read_instructions(messages), strict=True):
            if isinstance(asked, Exception):
                outcomes[client] = asked
            else:
                terms = asked.round_num, asked.learning_rate, asked.proximal_mu, asked.kl_baseline
                calls[terms][client] = asked
        for instructions in calls.values():
            outcomes |= self._train(instructions)
        # Each adapter is let go as soon as it is written into its reply.
        return [
            self._reply(message, client, outcomes.pop(client))
            for message, client in zip(messages, clients, strict=True)
        ]

    def _train(self, asked: Mapping[str, Instruction]) -> dict[str, TrainedClient | Exception]:
        """Train clients whose instructions differ in nothing but adapter and control variate."""
        corrections, outcomes = self._corrections(asked)
        outcomes |= self._unprotected(asked)
        able = {client: it for client, it in asked.items() if client not in outcomes}
        if not able:
            return outcomes
        first = next(iter(able.values()))
        try:
            trained = self._trainer(
                {client: it.adapter for client, it in able.items()},
                round_num=first.round_num,
                learning_rate=first.learning_rate,
                proximal_mu=first.proximal_mu,
                kl_baseline=first.kl_baseline,
                corrections={name: one for name, one in corrections.items() if name in able},
            )
        except Exception as error:
            return outcomes | dict.fromkeys(able, error)
        return outcomes | {
            client: self._finish(client, it, corrections.get(client), trained.pop(client))
            for client, it in able.items()
        }

    def _finish(
        self,
        client: str,
        asked: Instruction,
        correction: AdapterState | None,
        done: TrainedClient | Exception,
    ) -> TrainedClient | Exception:
        """Keep what the client keeps, and return what may be sent."""
        if isinstance(done, Exception):
            return done
        try:
            if correction is not None and self._controls:
                self._controls.renew(client, asked, correction, done.adapter)
            if self._noise:
                done = replace(done, adapter=self._noise.protect(client, asked, done.adapter))
        except Exception as error:
            return error
        return done

    def _corrections(
        self, asked: Mapping[str, Instruction]
    ) -> tuple[dict[str, AdapterState], dict[str, TrainedClient | Exception]]:
        """Return SCAFFOLD's corrections of gradients, and what failed in place of others."""
        corrections: dict[str, AdapterState] = {}
        failed: dict[str, TrainedClient | Exception] = {}
        for client, instruction in asked.items():
            if instruction.control is None:
                continue
            try:
                if self._controls is None:
                    raise FederationError(
                        "the server aggregates with SCAFFOLD, and this client was made without "
                        "control variates; give both sides the same mode.strategy"
                    )
                corrections[client] = self._controls.correction(client, instruction)
            except Exception as error:
                failed[client] = error
        return corrections, failed

    def _unprotected(
        self, asked: Mapping[str, Instruction]
    ) -> dict[str, TrainedClient | Exception]:
        """Return what failed because the server counts on other noise than clients add."""
        failed: dict[str, TrainedClient | Exception] = {}
        for client, instruction in asked.items():
            try:
                if self._noise is not None:
                    self._noise.check(instruction)
                elif instruction.local_noise is not None:
                    raise FederationError(
                        "the server counts on this client's share of the noise, and the client was "
                        "made without; give both sides the same privacy section"
                    )
            except FederationError as error:
                failed[client] = error
        return failed

    def _reply(self, message: Message, client: str, outcome: TrainedClient | Exception) -> Message:
        if isinstance(outcome, Exception):
            return logged_failure(message, client, outcome)
        try:
            return update_reply(
                message,
                outcome,
                weighting=self._weighting,
                report_private_metrics=self._report_private_metrics,
            )
        except Exception as error:
            return logged_failure(message, client, error)

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


def _client(context: Context) -> str:
    return str(context.node_config[CLIENT_ID])
