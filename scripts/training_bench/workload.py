"""What every way of training gets: clients with groups of random words, and a used adapter."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from pkgllm.lm.adapter import AdapterState
from pkgllm.lm.base_model import BaseModel
from pkgllm.objectives.apo_zero import ApoZero
from pkgllm.objectives.dpo import Dpo
from pkgllm.objectives.kto import Kto
from pkgllm.objectives.objective import Objective
from pkgllm.prompts.groups import Completion, Group
from pkgllm.prompts.prompts import Prompt
from pkgllm.randomness import stream, torch_seed

LORA_RANK, LORA_ALPHA = 16, 32
LEARNING_RATE = 1e-3
MAX_GRAD_NORM = 1.0
BETA = 0.1
SEED = 0
GROUPS_PER_CLIENT = 2
COMPLETIONS_PER_GROUP = 16
EXAMPLES_PER_CLIENT = GROUPS_PER_CLIENT * COMPLETIONS_PER_GROUP

ObjectiveName = Literal["kto", "dpo"]
OBJECTIVES: Mapping[ObjectiveName, Objective] = {
    "kto": Kto(beta=BETA, desirable_weight=1, undesirable_weight=1, nll_weight=0),
    "dpo": Dpo(beta=BETA, nll_weight=0, pairs="matched"),
}
APO_ZERO = ApoZero(beta=BETA, desirable_weight=1, undesirable_weight=1, nll_weight=0)
"""KTO with the baseline fixed at 0, which does not couple examples."""

_NUM_WORDS = 1000


@dataclass(frozen=True, slots=True)
class Preset:
    """How large a workload is."""

    make_base: Callable[[], BaseModel]
    num_clients: int
    start_std: float
    """Standard deviation of both factors of the adapter that a round starts from.

    Large enough that the policy is not the reference and that KTO's KL baseline is above 0.
    """
    prompt_tokens: tuple[int, int] = (200, 600)
    """Shortest and longest."""
    completion_tokens: tuple[int, int] = (6, 10)
    """Shortest and longest, the terminator included."""


@dataclass(frozen=True, slots=True)
class Workload:
    """Clients with two groups each."""

    base: BaseModel
    """Bare; ways that put adapters into its layers need copies, or must take them out again."""
    groups: Mapping[str, tuple[Group, ...]]
    """By client. Each group's mismatched completions are those of the other."""

    @property
    def clients(self) -> list[str]:
        """Every client's id, in order."""
        return list(self.groups)


def make_workload(preset: Preset, num_clients: int) -> Workload:
    """Draw the clients of a preset; the first are the same however many there are."""
    base = preset.make_base()
    words = plain_words(base.tokenizer)
    return Workload(
        base,
        {
            client: _client_groups(client, preset, base, words)
            for client in (f"client-{number}" for number in range(num_clients))
        },
    )


def plain_words(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Draw tokens that are words with a space before them and stay themselves in any company.

    Text made of them has these very tokens, wherever it is cut.

    Raises:
        ValueError: If the tokenizer has none.
    """
    words = []
    for token in stream(SEED, "words").permutation(len(tokenizer)):
        text = spell(tokenizer, [int(token)])
        whole = text.startswith(" ") and text[1:].isalnum()
        if whole and tokenizer(text * 2)["input_ids"] == [token, token]:
            words.append(int(token))
        if len(words) == _NUM_WORDS:
            break
    if not words:
        raise ValueError("the tokenizer must have words with a space before them, got none")
    return words


def spell(tokenizer: PreTrainedTokenizerBase, token_ids: Sequence[int]) -> str:
    """Return the text of tokens, to the letter."""
    text = tokenizer.decode(list(token_ids), clean_up_tokenization_spaces=False)
    assert isinstance(text, str)
    return text


def used_adapter(like: AdapterState, std: float) -> AdapterState:
    """Return an adapter away from the base model, as a round after the first starts from.

    Args:
        like: Says the names and shapes.
        std: Of every value.
    """
    generator = torch.Generator().manual_seed(torch_seed(SEED, "adapter"))
    return {
        key: torch.empty_like(value).normal_(0, std, generator=generator)
        for key, value in like.items()
    }


def _client_groups(
    client: str, preset: Preset, base: BaseModel, words: Sequence[int]
) -> tuple[Group, ...]:
    generator = stream(SEED, "groups", client)

    def draw(shortest: int, longest: int) -> tuple[int, ...]:
        length = generator.integers(shortest, longest + 1)
        return tuple(int(token) for token in generator.choice(words, length))

    def completion(*, desirable: bool) -> Completion:
        shortest, longest = preset.completion_tokens
        title = draw(shortest - 1, longest - 1)
        return Completion(
            spell(base.tokenizer, title), (*title, base.terminator_id), desirable, "uniform"
        )

    groups = []
    for _ in range(GROUPS_PER_CLIENT):
        token_ids = draw(*preset.prompt_tokens)
        prompt = Prompt(client, "", spell(base.tokenizer, token_ids), token_ids, frozenset(), 0)
        completions = (
            completion(desirable=place % 2 == 0) for place in range(COMPLETIONS_PER_GROUP)
        )
        groups.append((prompt, tuple(completions)))
    return tuple(
        Group(prompt, completions, groups[1 - place][1])
        for place, (prompt, completions) in enumerate(groups)
    )


def count_tokens(groups: Sequence[Group]) -> tuple[float, float]:
    """Return the mean tokens of a prompt and of a completion."""
    prompts = [len(group.prompt.token_ids) for group in groups]
    completions = [len(c.token_ids) for group in groups for c in group.completions]
    return float(np.mean(prompts)), float(np.mean(completions))
