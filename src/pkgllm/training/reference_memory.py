"""The values of a reference cache that are in memory: a hash table in flat arrays."""

import numpy as np

KEY_BYTES = 32
"""Length of a key, a SHA-256."""

ENTRY_BYTES = KEY_BYTES + 4 + 4 * 4
"""A key, a value, and a row number in each of four tables."""


class MemoryTier:
    """Keeps the values that were used last, in a fixed number of bytes.

    A ``dict[bytes, float]`` takes 220 to 290 bytes of memory for an entry, counted by the operating
    system in CPython 3.11; here it is 52, whatever has come and gone. Rows of the tables are
    chained by hash, and ringed in the order of their last use.

    Args:
        memory_bytes: Size of all tables. They hold one row more than values.

    Raises:
        ValueError: If ``memory_bytes`` is negative.

    Example:
        >>> tier = MemoryTier(3 * ENTRY_BYTES)
        >>> films = [bytes([film] * 32) for film in range(3)]
        >>> tier.put(films[0], -1.5), tier.put(films[1], -2.5)
        ({}, {})
        >>> tier.put(films[0], -1.5)  # used again, so the other one leaves
        {}
        >>> tier.put(films[2], -3.5) == {films[1]: -2.5}
        True
        >>> tier.get(films[0]), tier.get(films[1])
        (-1.5, None)
    """

    def __init__(self, memory_bytes: int) -> None:
        if memory_bytes < 0:
            raise ValueError(f"memory_bytes must be at least 0, got {memory_bytes}")
        # Row 0 holds no value: it ends every chain and closes the ring.
        num_rows = max(memory_bytes // ENTRY_BYTES, 1)
        self._capacity = num_rows - 1
        self._size = 0
        # The operating system gives memory to zeros only when they are first written to.
        self._keys = np.zeros(KEY_BYTES * num_rows, np.uint8).data
        self._values = np.zeros(4 * num_rows, np.uint8).data.cast("f")
        self._chain_starts, self._chain_nexts, self._older, self._newer = (
            np.zeros(4 * num_rows, np.uint8).data.cast("i") for _ in range(4)
        )

    def __len__(self) -> int:
        return self._size

    def get(self, key: bytes) -> float | None:
        """Return a key's value, or None. This does not count as a use."""
        row = self._find(key)
        return self._values[row] if row else None

    def put(self, key: bytes, value: float) -> dict[bytes, float]:
        """Keep a value as the one that was used last.

        Args:
            key: Of 32 bytes.
            value: Exact in float32. A key that is kept already keeps the value it has.

        Returns:
            What no longer fits: nothing, the value that was unused for longest, or, where there is
            room for none, this one.
        """
        row = self._find(key)
        if row:
            self._leave_ring(row)
            self._enter_ring(row)
            return {}
        if not self._capacity:
            return {key: value}
        evicted = {}
        if self._size < self._capacity:
            self._size += 1
            row = self._size
        else:
            row = self._newer[0]
            evicted[self._key(row)] = self._values[row]
            self._leave_ring(row)
            self._leave_chain(row)
        self._keys[KEY_BYTES * row : KEY_BYTES * (row + 1)] = key
        self._values[row] = value
        self._enter_chain(row)
        self._enter_ring(row)
        return evicted

    def _key(self, row: int) -> bytes:
        return bytes(self._keys[KEY_BYTES * row : KEY_BYTES * (row + 1)])

    def _chain(self, key: bytes) -> int:
        return int.from_bytes(key[:8], "little") % len(self._chain_starts)

    def _find(self, key: bytes) -> int:
        row = self._chain_starts[self._chain(key)]
        while row and self._key(row) != key:
            row = self._chain_nexts[row]
        return row

    def _enter_chain(self, row: int) -> None:
        chain = self._chain(self._key(row))
        self._chain_nexts[row] = self._chain_starts[chain]
        self._chain_starts[chain] = row

    def _leave_chain(self, row: int) -> None:
        chain = self._chain(self._key(row))
        before = self._chain_starts[chain]
        if before == row:
            self._chain_starts[chain] = self._chain_nexts[row]
            return
        while self._chain_nexts[before] != row:
            before = self._chain_nexts[before]
        self._chain_nexts[before] = self._chain_nexts[row]

    def _enter_ring(self, row: int) -> None:
        newest = self._older[0]
        self._older[row], self._newer[row] = newest, 0
        self._newer[newest] = self._older[0] = row

    def _leave_ring(self, row: int) -> None:
        older, newer = self._older[row], self._newer[row]
        self._newer[older], self._older[newer] = newer, older
