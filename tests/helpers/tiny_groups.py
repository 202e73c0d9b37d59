"""Groups of token ids, and a policy whose adapter already does something."""

import torch
from peft import PeftModel

from pkgllm.lm.adapter import attach_adapter
from pkgllm.lm.base_model import BaseModel
from pkgllm.prompts.groups import Completion, Group
from pkgllm.prompts.prompts import Prompt

Ids = tuple[int, ...]


def a_policy(base: BaseModel) -> PeftModel:
    """A policy away from its base model, since a fresh adapter changes nothing."""
    policy = attach_adapter(
        base.model, lora_rank=2, lora_alpha=4, target_modules="all-linear", seed=0
    )
    stir(policy, seed=2)
    return policy


def stir(policy: PeftModel, *, seed: int) -> None:
    """Put random numbers into the adapter."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in policy.named_parameters():
        if "lora_" in name:
            parameter.data.normal_(0, 0.2, generator=generator)


def a_completion(ids: Ids, *, desirable: bool = True) -> Completion:
    return Completion(str(ids), ids, desirable, "liked" if desirable else "uniform")


def a_group(
    prompt: Ids, desirable: list[Ids], undesirable: list[Ids], mismatched: tuple[Ids, ...] = ()
) -> Group:
    return Group(
        Prompt("p1", "", "", prompt, frozenset(), 0),
        (
            *(a_completion(ids) for ids in desirable),
            *(a_completion(ids, desirable=False) for ids in undesirable),
        ),
        tuple(a_completion(ids) for ids in mismatched),
    )


def log_probability(policy: PeftModel, prompt: Ids, completion: Ids) -> torch.Tensor:
    """The definition: one prompt with one completion in a forward pass of its own."""
    log_probs = policy(torch.tensor([[*prompt, *completion]])).logits[0].log_softmax(-1)
    positions = range(len(prompt) - 1, len(prompt) + len(completion) - 1)
    return torch.stack([log_probs[p, t] for p, t in zip(positions, completion, strict=True)]).sum()
