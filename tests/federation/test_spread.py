import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pkgllm.federation.spread import CohortSpread, UpdateSpread, update_spread

floats = st.floats(width=32, allow_nan=False, allow_infinity=False)
tiny = st.integers(-9, 9).map(lambda n: n * 2.0**-149)
"""The smallest subnormal numbers of single precision."""


def spread(clients: Sequence[Sequence[float]], start: Sequence[float]) -> UpdateSpread:
    """Cut every vector into two keys, so that sums go over more than one."""
    cut = len(start) // 2
    before = {"a": torch.tensor(start[:cut]), "b": torch.tensor(start[cut:])}
    sent = [{"a": torch.tensor(c[:cut]), "b": torch.tensor(c[cut:])} for c in clients]
    return update_spread(before, sent)


def test_lengths_and_cosines_by_hand() -> None:
    # Updates (3, 0) and (0, 4): lengths 3 and 4; their mean (1.5, 2) has length 2.5, so the
    # cosines are 4.5 / 7.5 = .6 and 8 / 10 = .8.
    found = spread([[4.0, 1.0], [1.0, 5.0]], [1.0, 1.0])
    assert found.norms == CohortSpread(3.5, 3.0, 4.0, 0.5)
    assert (found.cosines.mean, found.cosines.sd) == pytest.approx((0.7, 0.1))
    assert (found.cosines.min, found.cosines.max) == pytest.approx((0.6, 0.8))


def test_a_client_that_changed_nothing_has_a_length_but_no_direction() -> None:
    found = spread([[1.0, 1.0], [1.0, 3.0]], [1.0, 1.0])
    assert found.norms == CohortSpread(1.0, 0.0, 2.0, 1.0)
    assert found.cosines == CohortSpread(1.0, 1.0, 1.0, 0.0)


@pytest.mark.parametrize("clients", [[[1.0, 1.0]], [[3.0, 1.0], [-1.0, 1.0]]])
def test_where_the_mean_is_zero_nobody_has_a_cosine(clients: list[list[float]]) -> None:
    found = spread(clients, [1.0, 1.0])
    assert all(math.isnan(getattr(found.cosines, name)) for name in ("mean", "min", "max", "sd"))
    assert math.isfinite(found.norms.sd)


def test_the_smallest_numbers_count_like_any_others() -> None:
    least = 2.0**-149
    found = spread([[3 * least, 0.0], [0.0, 4 * least]], [0.0, 0.0])
    assert found.norms == CohortSpread(3.5 * least, 3 * least, 4 * least, 0.5 * least)
    assert (found.cosines.min, found.cosines.max) == pytest.approx((0.6, 0.8), rel=1e-12)


@pytest.mark.slow
@given(
    st.integers(2, 5).flatmap(
        lambda size: st.tuples(
            st.lists(floats | tiny, min_size=size, max_size=size),
            st.lists(st.lists(floats | tiny, min_size=size, max_size=size), min_size=1, max_size=4),
        )
    )
)
def test_equals_the_formula_in_longer_precision(
    case: tuple[list[float], list[list[float]]],
) -> None:
    start, clients = case
    found = spread(clients, start)
    updates = np.array(clients, np.longdouble) - np.array(start, np.longdouble)
    norms = np.sqrt(np.square(updates).sum(1))
    assert found.norms.max == pytest.approx(float(norms.max()), rel=1e-9, abs=0)
    assert found.norms.min <= found.norms.mean * (1 + 1e-9)
    assert found.norms.mean <= found.norms.max * (1 + 1e-9)
    mean = updates.mean(0)
    length = np.sqrt(np.square(mean).sum())
    # Where updates cancel, the mean is what rounding left of it.
    if length > 1e-6 * norms.max():
        directed = norms > 0
        cosines = (updates[directed] @ mean) / norms[directed] / length
        assert found.cosines.min == pytest.approx(float(cosines.min()), abs=1e-7)
        assert found.cosines.max == pytest.approx(float(cosines.max()), abs=1e-7)
    for value in (found.cosines.min, found.cosines.mean, found.cosines.max):
        assert math.isnan(value) or -1 <= value <= 1


def test_the_order_of_the_keys_of_a_client_changes_nothing() -> None:
    generator = torch.Generator().manual_seed(3)
    clients = [{k: torch.randn(7, generator=generator) for k in "ab"} for _ in range(3)]
    turned = [dict(reversed(client.items())) for client in clients]
    before = {key: torch.zeros(7) for key in "ab"}
    assert update_spread(before, clients) == update_spread(before, turned)
