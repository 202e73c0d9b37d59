"""How the updates of a cohort differ: their lengths, and how far they point the same way.

The server computes both from the updates that it received anyway, so nothing more leaves a client.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

_BLOCK = 1 << 12
"""Values of a key that are taken at once; of a cohort they fit into a processor's cache."""


@dataclass(frozen=True, slots=True)
class CohortSpread:
    """How one number is spread over a cohort; all NaN where nobody has the number."""

    mean: float
    min: float
    max: float
    sd: float
    """Standard deviation of the cohort itself, with ``n`` below."""

    @classmethod
    def of(cls, values: Sequence[float]) -> "CohortSpread":
        """Return the spread of finite values, of which there may be none.

        Example:
            >>> CohortSpread.of([1.0, 3.0])
            CohortSpread(mean=2.0, min=1.0, max=3.0, sd=1.0)
        """
        if not values:
            return cls(math.nan, math.nan, math.nan, math.nan)
        mean = math.fsum(values) / len(values)
        variance = math.fsum((value - mean) ** 2 for value in values) / len(values)
        return cls(mean, min(values), max(values), math.sqrt(variance))


@dataclass(frozen=True, slots=True)
class UpdateSpread:
    """The spread of a cohort's updates; not whose the smallest and largest values are."""

    norms: CohortSpread
    """Of the Euclidean lengths."""
    cosines: CohortSpread
    """Of the cosine of each update to the mean update."""


def update_spread(
    before: Mapping[str, Tensor], clients: Sequence[Mapping[str, Tensor]]
) -> UpdateSpread:
    r"""Return how long the updates of a cohort are and how far they agree.

    With :math:`u_i` what client :math:`i` changed and :math:`m = \frac{1}{n} \sum_i u_i`, the plain
    mean, the cosine is :math:`u_i \cdot m / (\lVert u_i \rVert \lVert m \rVert)`. An update of
    length zero has no direction, so its client has no cosine, and nobody has one where the mean is
    zero. Sums are in double precision, which holds the square of every single-precision number,
    subnormal ones too.

    Args:
        before: The adapter that the cohort received.
        clients: What each client sent, in order of client id: finite float32 tensors of the shapes
            in ``before``.

    Example:
        >>> import torch
        >>> start = {"a": torch.zeros(2)}
        >>> sent = [{"a": torch.tensor([3.0, 0.0])}, {"a": torch.tensor([0.0, 3.0])}]
        >>> spread = update_spread(start, sent)
        >>> spread.norms.mean, round(spread.cosines.mean, 4)
        (3.0, 0.7071)
    """
    squares, products = np.zeros(len(clients)), np.zeros(len(clients))
    mean_square = 0.0
    for key, tensor in before.items():
        start = tensor.numpy().reshape(-1)
        sent = [client[key].numpy().reshape(-1) for client in clients]
        for begin in range(0, start.size if clients else 0, _BLOCK):
            part = slice(begin, begin + _BLOCK)
            updates = np.array([array[part] for array in sent], np.float64) - start[part]
            mean = updates.mean(axis=0)
            mean_square += float(np.square(mean).sum())
            # Not dot products, whose rounding depends on the number of threads.
            squares += np.square(updates).sum(axis=1)
            products += (updates * mean).sum(axis=1)
    norms = np.sqrt(squares)
    directed = norms > 0 if mean_square > 0 else np.zeros(len(clients), bool)
    cosines = products[directed] / norms[directed] / math.sqrt(mean_square)
    # Rounding may lead just past one.
    return UpdateSpread(
        CohortSpread.of(norms.tolist()), CohortSpread.of(np.clip(cosines, -1, 1).tolist())
    )
