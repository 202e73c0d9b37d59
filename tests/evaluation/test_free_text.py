import numpy as np
import pytest
import torch
from scipy.stats import chisquare  # type: ignore[import-untyped]  # scipy ships no types

from pkgllm.evaluation.lists.free_text import Answer, FreeText, Sampler, most_probable

TERMINATOR = 0


def one_hot(*tokens: int) -> torch.Tensor:
    logits = torch.zeros(len(tokens), 6)
    logits[torch.arange(len(tokens)), torch.tensor(tokens)] = 1.0
    return logits


def test_an_answer_ends_at_the_terminator_or_at_its_longest_length() -> None:
    writer = FreeText([most_probable] * 3, TERMINATOR, max_new_tokens=3)
    assert writer.write(one_hot(3, 0, 5)) == [3, None, 5]
    assert writer.write(one_hot(0, 4, 5)) == [None, None, 5]
    assert writer.write(one_hot(2, 4, 1)) == [None, None, None]
    assert list(writer.answers()) == [
        Answer((3,), finished=True),
        Answer((), finished=True),
        Answer((5, 5, 1), finished=False),
    ]


def test_a_terminator_at_the_longest_length_finishes() -> None:
    writer = FreeText([most_probable], TERMINATOR, max_new_tokens=1)
    assert writer.write(one_hot(0)) == [None]
    assert list(writer.answers()) == [Answer((), finished=True)]


def test_the_first_of_equal_logits_is_most_probable() -> None:
    assert most_probable(torch.tensor([0.0, 2.0, 2.0])) == 1


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_draws_follow_the_softmax_of_the_logits(temperature: float) -> None:
    logits = torch.tensor([1.0, -torch.inf, 0.0, 2.0, -1.0])
    sampler = Sampler(np.random.default_rng(0), temperature)
    counts = np.bincount([sampler(logits) for _ in range(4000)], minlength=5)
    expected = np.exp(np.array([1.0, -np.inf, 0.0, 2.0, -1.0]) / temperature)
    expected *= 4000 / expected.sum()
    assert counts[1] == 0
    # The seed is fixed, so this is no matter of luck.
    assert chisquare(counts[expected > 0], expected[expected > 0]).pvalue > 0.01


class Fixed:
    """Gives the same number each time."""

    def __init__(self, number: float) -> None:
        self.number = number

    def random(self) -> float:
        return self.number


@pytest.mark.parametrize(("number", "token"), [(0.0, 1), (0.24, 1), (0.26, 3), (1 - 2**-53, 3)])
def test_a_number_stands_for_a_token(number: float, token: int) -> None:
    logits = torch.tensor([0.0, 0.25, 0.0, 0.75]).log()
    sampler = Sampler(Fixed(number), 1.0)  # type: ignore[arg-type]
    assert sampler(logits) == token
