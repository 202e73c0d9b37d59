import hashlib
import tracemalloc
from collections import OrderedDict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pkgllm.training.reference_memory import ENTRY_BYTES, MemoryTier

# Half of the keys start alike, so that they stand in one chain whatever its number.
KEYS = [
    (bytes(8) if number % 2 else number.to_bytes(8, "little")) + number.to_bytes(24, "little")
    for number in range(12)
]


@given(
    rows=st.integers(0, 9),
    uses=st.lists(st.tuples(st.sampled_from(KEYS), st.floats(width=32, allow_nan=False))),
)
def test_is_an_ordered_dict_that_forgets_its_oldest_entry(
    rows: int, uses: list[tuple[bytes, float]]
) -> None:
    tier, capacity = MemoryTier(rows * ENTRY_BYTES), max(rows - 1, 0)
    model: OrderedDict[bytes, float] = OrderedDict()
    for key, value in uses:
        model.setdefault(key, value)
        model.move_to_end(key)
        oldest = dict([model.popitem(last=False)]) if len(model) > capacity else {}
        assert tier.put(key, value) == oldest
        assert len(tier) == len(model)
        assert {key: tier.get(key) for key in KEYS if tier.get(key) is not None} == model


def test_looking_is_no_use() -> None:
    tier = MemoryTier(3 * ENTRY_BYTES)
    tier.put(KEYS[0], -1.0)
    tier.put(KEYS[1], -2.0)
    assert tier.get(KEYS[0]) == -1.0
    assert tier.put(KEYS[2], -3.0) == {KEYS[0]: -1.0}


@pytest.mark.parametrize("memory_bytes", [0, 1, 51, 52, 103, 104, 300_000])
def test_takes_no_more_than_its_memory(memory_bytes: int) -> None:
    keys = [hashlib.sha256(number.to_bytes(4)).digest() for number in range(12_000)]
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        tier = MemoryTier(memory_bytes)
        for key in keys:
            tier.put(key, -1.5)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(tier) == max(memory_bytes // 52 - 1, 0)
    # The objects of six tables, and those of one call.
    assert peak - before < memory_bytes + 6000


def test_refuses_a_negative_size() -> None:
    with pytest.raises(ValueError, match="memory_bytes must be at least 0, got -1"):
        MemoryTier(-1)
