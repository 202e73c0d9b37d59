"""The Gaussian mechanism in closed form: what one release costs.

Source: Balle and Wang 2018, arXiv:1805.06530, theorem 8; Dong et al. 2019, arXiv:1905.02383.
"""

import math

from scipy.optimize import brentq  # type: ignore[import-untyped]  # scipy ships no types
from scipy.special import log_ndtr  # type: ignore[import-untyped]  # scipy ships no types

_WIDEST = 1e-12
"""A mu below it is taken for none."""


def gaussian_delta(mu: float, epsilon: float) -> float:
    r"""Return the smallest delta of a mechanism with noise multiplier ``1 / mu``.

    .. math:: \delta = \Phi(\mu/2 - \epsilon/\mu) - e^\epsilon \Phi(-\mu/2 - \epsilon/\mu)

    Args:
        mu: Sensitivity over the noise's standard deviation; positive.
        epsilon: 0 or more.

    Example:
        >>> round(gaussian_delta(1.0, 0.0), 6)
        0.382925
    """
    upper = math.exp(log_ndtr(mu / 2 - epsilon / mu))
    return max(upper - math.exp(epsilon + log_ndtr(-mu / 2 - epsilon / mu)), 0.0)


def gaussian_epsilon(mu: float, delta: float) -> float:
    """Return the epsilon of a mechanism with noise multiplier ``1 / mu``.

    Args:
        mu: Sensitivity over the noise's standard deviation; 0 or more.
        delta: Above 0, below 1.

    Raises:
        ValueError: If an argument is out of range.

    Example:
        >>> round(gaussian_epsilon(1.0, 1e-5), 3)
        4.377
    """
    if not 0 < delta < 1:
        raise ValueError(f"delta must be above 0 and below 1, got {delta}")
    if not 0 <= mu < math.inf:
        raise ValueError(f"mu must be 0 or more, got {mu}")
    if mu < _WIDEST or gaussian_delta(mu, 0.0) <= delta:
        return 0.0
    high = 1.0
    while gaussian_delta(mu, high) > delta:
        high *= 2
    return float(brentq(lambda epsilon: gaussian_delta(mu, epsilon) - delta, 0.0, high))
