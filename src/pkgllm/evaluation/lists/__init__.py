"""Lists of recommendations that a language model writes itself, the secondary protocol."""

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Le

from pkgllm.bounds import Positive, PositiveFloat


@dataclass(frozen=True, slots=True, kw_only=True)
class ListSettings:
    """Recommendations that the model writes itself, the secondary protocol."""

    k: Annotated[int, Ge(1), Le(10)] = 10
    """Longest list, items; longer ones are cut. Of rankers no more than the best 10 are kept."""
    max_new_tokens: Positive = 160
    """Tokens after which an unconstrained answer is cut off."""
    temperature: PositiveFloat = 1.0
    """Of the sampled answers; below 1 likely tokens become likelier."""
    samples: Positive = 5
    """Sampled answers per client, each with a stream of its own."""
    prompts_at_once: Positive = 16
    """Prompts that are answered together; bounds the memory."""
