"""Median, trimmed mean and Krum beside numpy and the papers, and with clients that lie."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.algorithm_steps import Server, doubles, moved, some_adapter
from helpers.quadratic_clients import same_bytes
from pkgllm.federation.algorithms.fedmedian import FedMedian
from pkgllm.federation.algorithms.fedtrimmedavg import FedTrimmedAvg
from pkgllm.federation.algorithms.krum import Krum, closest_to_most, squared_distances
from pkgllm.lm.adapter import AdapterState

adapters = st.lists(
    st.lists(st.floats(-9, 9, width=32), min_size=14, max_size=14), min_size=1, max_size=9
)


def from_values(rows: list[list[float]]) -> Iterator[AdapterState]:
    for row in rows:
        values = torch.tensor(row)
        yield {"layer.lora_A": values[:6].view(2, 3), "layer.lora_B": values[6:].view(4, 2)}


@settings(max_examples=40, deadline=None)
@given(adapters)
def test_the_median_is_numpys(rows: list[list[float]]) -> None:
    after = Server(FedMedian(), some_adapter(0)).take(list(from_values(rows)))
    (expected,) = from_values([list(np.median(np.array(rows, np.float32), axis=0))])
    torch.testing.assert_close(after, expected)


@settings(max_examples=40, deadline=None)
@given(adapters, st.floats(0, 0.49))
def test_the_trimmed_mean_is_that_of_the_middle(rows: list[list[float]], share: float) -> None:
    server = Server(FedTrimmedAvg(trimmed_share=share), some_adapter(0))
    after = server.take(list(from_values(rows)))
    cut = int(share * len(rows))
    middle = np.sort(np.array(rows, np.float32), axis=0)[cut : len(rows) - cut]
    (expected,) = from_values([list(middle.mean(axis=0, dtype=np.float32))])
    torch.testing.assert_close(after, expected, rtol=1e-5, atol=1e-5)


def flattened(adapter: AdapterState) -> np.ndarray:
    return np.concatenate([value.ravel() for value in doubles(adapter).values()])


def krum_by_the_paper(updates: list[np.ndarray], num_malicious: int) -> int:
    """Blanchard et al. 2017, section 4, one update after the other."""
    scores = []
    for index, own in enumerate(updates):
        distances = sorted(
            float(((own - other) ** 2).sum()) for j, other in enumerate(updates) if j != index
        )
        scores.append(sum(distances[: max(1, len(updates) - num_malicious - 2)]))
    return int(np.argmin(scores))


@pytest.mark.parametrize("std", [1.0, 1e-4])
def test_krum_selects_as_the_paper_does_however_small_the_steps(std: float) -> None:
    # Adapters of length 300 that differ by 0.004 or less: in single precision nothing is left.
    start = {key: 100 * value for key, value in some_adapter(0).items()}
    selected = set()
    for seed in range(20):
        updates = [moved(start, 100 * seed + n, std=std) for n in range(7)]
        expected = krum_by_the_paper([flattened(update) for update in updates], 2)
        after = Server(Krum(num_malicious=2), start).take(updates)
        assert same_bytes(after, updates[expected])
        selected.add(expected)
    assert len(selected) > 3


def test_krum_is_not_moved_by_two_of_seven() -> None:
    start = some_adapter(0)
    updates = [moved(start, n, std=0.01) for n in range(7)]
    for bad in (1, 4):
        updates[bad] = {key: value + 50 for key, value in start.items()}
    after = Server(Krum(num_malicious=2), start).take(updates)
    assert any(same_bytes(after, updates[n]) for n in (0, 2, 3, 5, 6))


def test_distances_do_not_depend_on_how_values_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    updates, sent = [some_adapter(n) for n in range(4)], some_adapter(9)
    whole = squared_distances(updates, sent)
    monkeypatch.setattr("pkgllm.federation.algorithms.krum._CHUNK", 4)
    torch.testing.assert_close(squared_distances(updates, sent), whole, rtol=1e-12, atol=1e-12)
    vectors = [flattened(update) for update in updates]
    direct = [[float(((one - other) ** 2).sum()) for other in vectors] for one in vectors]
    np.testing.assert_allclose(whole.numpy(), direct, rtol=1e-9, atol=1e-9)
    assert closest_to_most(whole, 0) == krum_by_the_paper(vectors, 0)
