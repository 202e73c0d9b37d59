"""The base model, its adapter, and how one client trains."""

from typing import Literal

from pkgllm.config.section import NotNegativeFloat, Positive, PositiveFloat, Section


class BaseModelChoice(Section):
    """The frozen language model."""

    name: str
    """A folder, a name in ``$PKGLLM_MODELS``, ``data/models`` or the shipped ones, or a hub id."""
    device: str = "auto"
    """``auto``, ``cpu``, ``cuda`` or ``cuda:N``."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of the frozen parameters; the adapter is always float32."""


class Adapter(Section):
    """The LoRA adapter (Hu et al. 2021)."""

    lora_rank: Positive = 16
    """Inner dimension of the factors."""
    lora_alpha: PositiveFloat = 32.0
    """Scale: the product of the factors is multiplied by ``lora_alpha / lora_rank``."""
    rank_stabilized: bool = False
    """Multiply by ``lora_alpha / sqrt(lora_rank)`` instead (rsLoRA, Kalajdzievski 2023)."""
    freeze_a: bool = False
    """Train only the second factor, ``B`` (FFA-LoRA, Sun et al. 2024): the mean of updates is then
    the update of the mean."""
    target_modules: tuple[str, ...] | Literal["all-linear"] = "all-linear"
    """Names of the linear layers that are adapted; the LM head never is."""


class Training(Section):
    """Local training of one client."""

    engine: Literal["lanes", "sequential", "trl"] = "lanes"
    """How clients are trained: many in one pass over the frozen base model, or one after the other
    by PEFT, which is slower, takes any base model, and is what ``lanes`` must equal, or one after
    the other by TRL's own trainers, slowest, with the package's extra ``trl``."""
    memory_gib: PositiveFloat | None = None
    """Memory that ``lanes`` may take beside the model's parameters, GiB; sets how many clients
    train at once. When absent 2 on a CPU, and 0.8 of what is free on a GPU."""
    attention: Literal["sdpa", "flex"] = "sdpa"
    """What computes the attention of ``lanes`` on a GPU: torch's scaled dot product with a mask, or
    FlexAttention, which leaves out what the mask hides and is compiled first."""
    optimizer: Literal["adamw", "sgd"] = "adamw"
    """The local optimiser; its state is fresh in every round."""
    learning_rate: PositiveFloat = 1e-3
    """Step size of the first round."""
    schedule: Literal["constant", "linear"] = "linear"
    """How the step size goes from round to round: unchanged, or falling linearly to 0."""
    weight_decay: NotNegativeFloat = 0.0
    """Decoupled weight decay."""
    max_grad_norm: PositiveFloat = 1.0
    """Longest gradient of a step; longer ones are scaled down."""
    groups_per_step: Positive = 4
    """Groups in one optimiser step."""
    local_steps: Positive = 4
    """Optimiser steps of one client in one round."""

    def learning_rate_of(self, round_num: int, *, rounds: int) -> float:
        """Return the step size of a round.

        Example:
            >>> training = Training(learning_rate=1.0, schedule="linear")
            >>> [training.learning_rate_of(round_num, rounds=4) for round_num in (1, 2, 3, 4)]
            [1.0, 0.75, 0.5, 0.25]
        """
        falling = self.schedule == "linear"
        return self.learning_rate * (1 - (round_num - 1) / rounds if falling else 1)


class EmbeddingTraining(Section):
    """Where an embedding is trained, and how often that is written down."""

    device: str = "auto"
    """``auto``, ``cpu``, ``cuda`` or ``cuda:N``."""
    checkpoint_every: Positive = 1
    """Epochs between checkpoints; there is one at the end of a stage and at a stop as well. A mode
    ``federated`` has one after each round."""
