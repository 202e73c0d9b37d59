"""What an actor of Ray makes of a run folder: the trainer of the run, in a process of its own."""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from pkgllm.config import schema
from pkgllm.config.load import load_config
from pkgllm.federation.client_noise import make_noise
from pkgllm.federation.flower.ray.clients import ActorClients
from pkgllm.lm.base_model import load_base_model
from pkgllm.pipeline.build import make_policy
from pkgllm.pipeline.privacy import noise_source, shared_noise
from pkgllm.pipeline.trainers import GPU_SHARE, make_clients, make_trainer
from pkgllm.privacy.example_level import ExampleRelease
from pkgllm.privacy.ledger import ChargedBefore
from pkgllm.privacy.run_privacy import LEDGER, RunPrivacy
from pkgllm.prompts.group_store import GroupStore
from pkgllm.prompts.groups import Group
from pkgllm.runs.folder import RunFolder


def actor_clients(
    run: RunFolder,
    groups: Mapping[str, Sequence[Group]],
    runtime: schema.RayRuntime,
    privacy: RunPrivacy | None = None,
) -> "ActorClientsFactory":
    """Return what builds the clients of a run inside an actor.

    Raises:
        TypeError: If the groups are not in a file, where other processes can read them.
    """
    if not isinstance(groups, GroupStore):
        raise TypeError(f"groups must be a GroupStore, got {type(groups).__name__}")
    return ActorClientsFactory(
        config=run.config.resolve(),
        groups=groups.path.resolve(),
        working_folder=Path.cwd(),
        gpus_per_client=runtime.gpus_per_client,
        noise_multiplier=privacy.noise_multiplier if privacy else None,
        insecure_fixed_noise=privacy is not None and privacy.noise.reproducible,
    )


@dataclass(frozen=True, slots=True)
class ActorClientsFactory:
    """Builds the clients' side from files that every machine of Ray must see.

    Reference log-probabilities stay in the actor's memory, and no file is written; those that do
    not fit are computed again.

    Args:
        config: The run's ``config.yaml``.
        groups: The run's groups.
        working_folder: Where relative names of the configuration begin.
        gpus_per_client: The actor's share of its GPU, or its number of GPUs.
        noise_multiplier: Of each release, which depends on all clients; None without privacy.
        insecure_fixed_noise: Whether noise comes from the seed, for tests alone.
    """

    config: Path
    groups: Path
    working_folder: Path
    gpus_per_client: float
    noise_multiplier: float | None = None
    insecure_fixed_noise: bool = False

    def __call__(self) -> ActorClients:
        """Load the base model and the index of the groups.

        Raises:
            PkgllmError: If a file is missing or damaged.
        """
        config = load_config(str(self.config))
        choice = config.base_model
        # Of the machine's GPUs an actor sees its own alone, and counts from 0.
        device = "cuda" if choice.device.startswith("cuda") else choice.device
        with contextlib.chdir(self.working_folder):
            base = load_base_model(choice.name, device=device, dtype=choice.dtype)
        policy = make_policy(config, base)
        groups = GroupStore.open(self.groups)
        trainer = make_trainer(
            self._within_share(config, base.device),
            policy,
            base,
            groups,
            None,
            local_steps=config.training.local_steps,
            release=self._release(config),
        )
        source = noise_source(config, insecure_fixed_noise=self.insecure_fixed_noise)
        charged = ChargedBefore(self.config.parent / LEDGER)
        settings = self.noise_multiplier and shared_noise(config, self.noise_multiplier)
        noise = make_noise(settings or None, policy, source, charged=charged)
        assert isinstance(config.mode, schema.Federated), "only federated runs have actors"
        clients = make_clients(config, config.mode, trainer, self.config.parent, noise)
        return ActorClients(clients, tuple(groups))

    def _release(self, config: schema.Experiment) -> ExampleRelease | None:
        """Return how an actor draws noise, and sees that the run's process has charged for it."""
        if not config.privacy.hides_examples or self.noise_multiplier is None:
            return None
        return ExampleRelease(
            self.noise_multiplier,
            noise_source(config, insecure_fixed_noise=self.insecure_fixed_noise),
            ChargedBefore(self.config.parent / LEDGER),
        )

    def _within_share(self, config: schema.Experiment, device: torch.device) -> schema.Experiment:
        """Leave the others' part of a shared GPU to them: Ray itself divides nothing."""
        if config.training.memory_gib is not None or not 0 < self.gpus_per_client < 1:
            return config
        if device.type != "cuda":
            return config
        free, total = torch.cuda.mem_get_info(device)
        taken = torch.cuda.memory_allocated(device)
        room = max(min(self.gpus_per_client * total - taken, free) * GPU_SHARE, 1)
        training = config.training.model_copy(update={"memory_gib": room / 2**30})
        return config.model_copy(update={"training": training})
