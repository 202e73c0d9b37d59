"""How the tokens of a free answer are chosen, and when the answer ends."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

Pick = Callable[[Tensor], int]
"""Chooses a token by the logits of one row, shape ``(vocabulary,)``."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model wrote after one prompt."""

    token_ids: tuple[int, ...]
    """Without the terminator."""
    finished: bool
    """False where the answer was cut off at its longest length, perhaps within a title."""


def most_probable(logits: Tensor) -> int:
    """Return the token with the highest logit, the first of equals."""
    return int(logits.argmax())


class Sampler:
    r"""Draws tokens from :math:`\mathrm{softmax}(z / T)` of the logits :math:`z`.

    A token takes one uniform random number, at which the distribution function is inverted in
    float64, so equal numbers give equal tokens on every device, up to rounding of the logits.

    Args:
        generator: Source of the numbers.
        temperature: :math:`T`, positive.
    """

    def __init__(self, generator: np.random.Generator, temperature: float) -> None:
        self._generator = generator
        self._temperature = temperature

    def __call__(self, logits: Tensor) -> int:
        """Return the token that the next random number stands for."""
        up_to = (logits.double() / self._temperature).softmax(dim=0).cumsum(dim=0)
        # On the right, so that a token of probability 0 is never drawn.
        drawn = torch.searchsorted(up_to, up_to[-1] * self._generator.random(), right=True)
        return min(int(drawn), len(logits) - 1)


class FreeText:
    """The answers of a batch, token by token.

    Args:
        pick: For each row, how its tokens are chosen.
        terminator: Token that ends an answer.
        max_new_tokens: Longest answer, the terminator included.
    """

    def __init__(self, pick: Sequence[Pick], terminator: int, max_new_tokens: int) -> None:
        self._pick = pick
        self._terminator = terminator
        self._max_new_tokens = max_new_tokens
        self._written: list[list[int]] = [[] for _ in pick]

    def write(self, logits: Tensor) -> list[int | None]:
        """Return the token to feed next in each row; None where its answer has ended."""
        return [self._write_row(row, logits[row]) for row in range(len(logits))]

    def answers(self) -> Iterator[Answer]:
        """Yield what was written in each row, one token at least."""
        for written in self._written:
            finished = written[-1] == self._terminator
            yield Answer(tuple(written[:-1] if finished else written), finished)

    def _write_row(self, row: int, logits: Tensor) -> int | None:
        if self._is_done(row):
            return None
        token = self._pick[row](logits)
        self._written[row].append(token)
        return None if self._is_done(row) else token

    def _is_done(self, row: int) -> bool:
        written = self._written[row]
        return len(written) == self._max_new_tokens or self._terminator in written[-1:]
