"""The clients' side: train on what the server sent, and make what may be sent back."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch

from pkgllm.errors import FederationError
from pkgllm.federation.algorithm import Algorithm, LocalTerms
from pkgllm.federation.client_noise import ClientNoise
from pkgllm.federation.client_state import ClientStates
from pkgllm.federation.messages import Instruction, Update
from pkgllm.lm.adapter import AdapterState
from pkgllm.training.local import CohortTrainer, TrainedClient

Weighting = Literal["uniform", "examples"]


@dataclass(frozen=True, slots=True)
class _Task:
    asked: Instruction
    terms: LocalTerms

    @property
    def together(self) -> tuple[int, float, float, float | None]:
        """What clients that train in one call have in common."""
        asked = self.asked
        return asked.round_num, asked.learning_rate, self.terms.proximal_mu, asked.kl_baseline


class LocalClients:
    """Trains clients together, and says what leaves each of them.

    Raises:
        ValueError: If ``examples`` would send a private count without ``report_private_metrics``.
    """

    def __init__(
        self,
        trainer: CohortTrainer,
        algorithm: Algorithm,
        *,
        local_steps: int = 1,
        weighting: Weighting = "uniform",
        report_private_metrics: bool = False,
        states: ClientStates | None = None,
        noise: ClientNoise | None = None,
    ) -> None:
        if weighting == "examples" and not report_private_metrics:
            raise ValueError(
                "weighting 'examples' sends each client's number of groups, which is private; "
                "set report_private_metrics or use weighting 'uniform'"
            )
        if algorithm.client_state and states is None:
            raise ValueError(f"{algorithm.name} needs a place for the clients' states, got none")
        self._trainer = trainer
        self._algorithm = algorithm
        self._local_steps = local_steps
        self._weighting: Weighting = weighting
        self._report_private_metrics = report_private_metrics
        self._states = states
        self._noise = noise

    def train(self, asked: Mapping[str, Instruction]) -> dict[str, Update | Exception]:
        """Return what each client may send, or why it failed.

        Clients of the same round, learning rate, proximal term and KL baseline train in one call of
        the trainer. What is wrong with an instruction or an update fails its own client; what the
        trainer raises fails the clients of that call.

        Args:
            asked: What each client received, by its id. Equal adapters are one object, which a
                trainer must not change.

        Raises:
            KeyError: If the trainer leaves a client out.
        """
        outcomes: dict[str, Update | Exception] = {}
        calls: defaultdict[object, dict[str, _Task]] = defaultdict(dict)
        for client, instruction in asked.items():
            try:
                self._check(instruction)
                own = self._own(client, instruction)
                task = _Task(instruction, self._algorithm.terms(instruction, own))
            except Exception as error:
                outcomes[client] = error
            else:
                calls[task.together][client] = task
        for tasks in calls.values():
            outcomes |= self._train(tasks)
        return outcomes

    def _train(self, tasks: Mapping[str, _Task]) -> dict[str, Update | Exception]:
        """Train clients that have everything but adapter and correction in common."""
        first = next(iter(tasks.values()))
        try:
            trained = self._trainer(
                {client: task.asked.adapter for client, task in tasks.items()},
                round_num=first.asked.round_num,
                learning_rate=first.asked.learning_rate,
                proximal_mu=first.terms.proximal_mu,
                kl_baseline=first.asked.kl_baseline,
                corrections={
                    client: task.terms.correction
                    for client, task in tasks.items()
                    if task.terms.correction is not None
                },
            )
        except Exception as error:
            return dict.fromkeys(tasks, error)
        return {
            client: self._update(client, task.asked, trained.pop(client))
            for client, task in tasks.items()
        }

    def _update(
        self, client: str, asked: Instruction, done: TrainedClient | Exception
    ) -> Update | Exception:
        """Keep what the client keeps, and return what may be sent."""
        if isinstance(done, Exception):
            return done
        try:
            if self._states and self._algorithm.client_state:
                # Read again, so that no cohort's states are in memory while it trains.
                own = self._own(client, asked)
                self._states.write(
                    client,
                    self._algorithm.renew(asked, own, done.adapter, self._local_steps),
                    round_num=asked.round_num,
                    accepted_round=asked.accepted_round or 0,
                )
            if self._noise:
                done = replace(done, adapter=self._noise.protect(client, asked, done.adapter))
        except Exception as error:
            return error
        return Update(
            adapter=done.adapter,
            weight=1.0 if self._weighting == "uniform" else float(done.num_groups),
            metrics={"num_groups": done.num_groups, "loss": done.loss}
            if self._report_private_metrics
            else {},
        )

    def _own(self, client: str, asked: Instruction) -> AdapterState:
        """Return what a client kept after the round that the server last accepted."""
        if not self._algorithm.client_state or self._states is None:
            return {}
        if not asked.accepted_round:
            return {key: torch.zeros_like(value) for key, value in asked.adapter.items()}
        own = self._states.read(client, asked.accepted_round)
        shapes = {key: value.shape for key, value in own.items()}
        if shapes != {key: value.shape for key, value in asked.adapter.items()}:
            raise FederationError(
                f"client {client!r}: its state of round {asked.accepted_round} must have the keys "
                "and shapes of the adapter, has others; take another folder"
            )
        return own

    def _check(self, asked: Instruction) -> None:
        """Refuse an instruction of a server that is set up otherwise than the client."""
        algorithm = self._algorithm
        expects = set(algorithm.sends)
        keeps = asked.accepted_round is not None
        if asked.broadcast.names != expects or keeps != algorithm.client_state:
            raise FederationError(
                f"the server sends {sorted(asked.broadcast.names) or 'nothing'} beside the adapter "
                f"and counts on {'a' if keeps else 'no'} state of the client, and {algorithm.name} "
                f"takes {sorted(expects) or 'nothing'} and keeps "
                f"{'one' if algorithm.client_state else 'none'}; give both sides the same "
                "mode.strategy"
            )
        if self._noise is not None:
            self._noise.check(asked)
        elif asked.local_noise is not None:
            raise FederationError(
                "the server counts on this client's share of the noise, and the client was made "
                "without; give both sides the same privacy section"
            )
