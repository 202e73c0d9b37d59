"""What the engines share that train clients one after the other on one policy."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

from peft import PeftModel

from pkgllm.lm.adapter import AdapterState
from pkgllm.objectives.objective import Objective
from pkgllm.prompts.groups import Group
from pkgllm.training.local import NO_CORRECTIONS, LocalSteps, TrainedClient


class ClientByClient(ABC):
    """Trains clients one at a time on one policy; each starts from the adapter it receives."""

    def __init__(
        self,
        policy: PeftModel,
        groups: Mapping[str, Sequence[Group]],
        objective: Objective,
        *,
        steps: LocalSteps,
        seed: int,
    ) -> None:
        self._policy = policy
        self._groups = groups
        self._objective = objective
        self._steps = steps
        self._seed = seed

    def __call__(
        self,
        adapters: Mapping[str, AdapterState],
        *,
        round_num: int,
        learning_rate: float,
        proximal_mu: float = 0.0,
        kl_baseline: float | None = None,
        corrections: Mapping[str, AdapterState] = NO_CORRECTIONS,
    ) -> dict[str, TrainedClient | Exception]:
        """See :class:`~pkgllm.training.local.CohortTrainer`."""
        self._objective.check_baseline(kl_baseline)
        trained: dict[str, TrainedClient | Exception] = {}
        for client, adapter in adapters.items():
            try:
                trained[client] = self.train_client(
                    client,
                    adapter,
                    round_num,
                    learning_rate,
                    proximal_mu=proximal_mu,
                    kl_baseline=kl_baseline,
                    correction=corrections.get(client),
                )
            except Exception as error:
                trained[client] = error
        return trained

    @abstractmethod
    def train_client(
        self,
        client: str,
        adapter: AdapterState,
        round_num: int,
        learning_rate: float,
        *,
        proximal_mu: float,
        kl_baseline: float | None,
        correction: AdapterState | None,
    ) -> TrainedClient:
        """Train one client; the arguments are those of a cohort, for this client."""
