"""The catalogue as a token trie, cut into chunks that a language model scores one after another.

Titles that begin alike share their beginning, so a node is computed once. A chunk is a set of nodes
that are fed together after a prompt: each attends to the prompt and to its own ancestors, and its
position is the prompt's length plus its depth.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from pkgllm.errors import DataError


@dataclass(frozen=True, slots=True)
class Chunk:
    """Nodes that go through the model together, parents before children.

    The first ``num_carried`` are the ancestors of the first new node, repeated from earlier chunks
    so that a chunk needs the prompt's cache and itself only; they predict nothing here. The rows
    that predict are the ones after them.
    """

    input_ids: NDArray[np.int64]
    """Shape ``(inputs,)``."""
    depths: NDArray[np.int64]
    """Tokens between the prompt and each input. Shape ``(inputs,)``."""
    ancestors: NDArray[np.bool_]
    """True where the row's node attends to the column's: its ancestors and itself. Square."""
    num_carried: int
    child_offsets: NDArray[np.int64]
    """Children of predicting row ``r`` are ``child_offsets[r]:child_offsets[r + 1]`` below."""
    child_rows: NDArray[np.int64]
    """Predicting row of each child, ascending. Shape ``(children,)``."""
    child_tokens: NDArray[np.int64]
    """Token to look up in that row's distribution. Shape ``(children,)``."""
    child_nodes: NDArray[np.int64]
    """Node that the token leads to. Shape ``(children,)``."""


class CatalogueTrie:
    """Every title of a catalogue, token by token, in depth-first order.

    Args:
        sequences: Token ids of each column's title, ending with the terminator. Columns may share
            a sequence; they then share a node and tie.
        names: Surface form of each column, for messages.
        chunk_tokens: Most inputs in a chunk; one path from the root is never cut, so a longer title
            makes its chunk as large as itself.

    Raises:
        DataError: If a title tokenises to nothing, so that only its terminator is left.
        ValueError: If there are not as many names as sequences, none at all, or ``chunk_tokens`` is
            not positive.

    Example:
        >>> trie = CatalogueTrie([[5, 7, 0], [5, 0], [8, 0]], names=["a b", "a", "c"])
        >>> trie.tokens.tolist(), trie.parents.tolist(), trie.depths.tolist()
        ([5, 0, 7, 0, 8, 0], [-1, 0, 0, 2, -1, 4], [0, 1, 1, 2, 0, 1])
        >>> trie.terminal_nodes.tolist(), trie.num_inputs
        ([3, 1, 5], 3)
    """

    def __init__(
        self, sequences: Sequence[Sequence[int]], *, names: Sequence[str], chunk_tokens: int = 512
    ) -> None:
        if not sequences or len(sequences) != len(names):
            raise ValueError(
                f"every title needs a name, got {len(sequences)} titles and {len(names)} names"
            )
        if chunk_tokens < 1:
            raise ValueError(f"chunk_tokens must be at least 1, got {chunk_tokens}")
        for sequence, name in zip(sequences, names, strict=True):
            if len(sequence) < 2:
                raise DataError(
                    f"title {name!r}: a title must have at least one token before its terminator, "
                    "got none; rename the item or choose a base model whose tokenizer knows it"
                )
        self.chunk_tokens = chunk_tokens
        self._build([tuple(sequence) for sequence in sequences])

    def _build(self, sequences: Sequence[tuple[int, ...]]) -> None:
        tokens: list[int] = []
        parents: list[int] = []
        depths: list[int] = []
        terminal_by_sequence: dict[tuple[int, ...], int] = {}
        path: list[int] = []
        previous: tuple[int, ...] = ()
        # In sorted order a sequence leaves the path of the one before it and never comes back.
        for sequence in sorted(set(sequences)):
            shared = _shared_length(previous, sequence)
            del path[shared:]
            for depth in range(shared, len(sequence)):
                parents.append(path[-1] if path else -1)
                path.append(len(tokens))
                tokens.append(sequence[depth])
                depths.append(depth)
            terminal_by_sequence[sequence] = path[-1]
            previous = sequence
        self.tokens: NDArray[np.int64] = np.array(tokens, dtype=np.int64)
        self.parents: NDArray[np.int64] = np.array(parents, dtype=np.int64)
        """Node before each node; -1 after the prompt itself."""
        self.depths: NDArray[np.int64] = np.array(depths, dtype=np.int64)
        self.terminal_nodes: NDArray[np.int64] = np.array(
            [terminal_by_sequence[sequence] for sequence in sequences], dtype=np.int64
        )
        """Node that ends each column's title. Shape ``(columns,)``."""

    def __len__(self) -> int:
        return len(self.tokens)

    @cached_property
    def first_nodes(self) -> NDArray[np.int64]:
        """Nodes that the prompt's last token predicts."""
        return np.flatnonzero(self.parents < 0)

    @cached_property
    def inputs(self) -> NDArray[np.int64]:
        """Nodes that predict another one, in depth-first order; terminators do not."""
        return np.unique(self.parents[self.parents >= 0])

    @property
    def num_inputs(self) -> int:
        """Tokens that are fed for one prompt, without the carried ones."""
        return len(self.inputs)

    @cached_property
    def longest_input(self) -> int:
        """Positions that the longest title takes after the prompt."""
        return int(self.depths[self.inputs].max()) + 1

    @cached_property
    def chunks(self) -> tuple[Chunk, ...]:
        """All inputs in depth-first order, cut into chunks."""
        return tuple(self._cut())

    def path_sums(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Sum a value of every node along each column's path.

        Args:
            values: For scoring, log-probabilities of the nodes given their parents, in nats. Shape
                ``(nodes,)``.

        Returns:
            Shape ``(columns,)``.
        """
        sums = values.astype(np.float64)
        for nodes in self._levels[1:]:
            sums[nodes] += sums[self.parents[nodes]]
        return sums[self.terminal_nodes]

    @cached_property
    def _levels(self) -> tuple[NDArray[np.int64], ...]:
        order = np.argsort(self.depths, kind="stable")
        return tuple(np.split(order, np.flatnonzero(np.diff(self.depths[order])) + 1))

    def _cut(self) -> Iterator[Chunk]:
        children = np.argsort(self.parents, kind="stable")[len(self.first_nodes) :]
        offsets = np.searchsorted(
            self.parents[children], np.append(self.inputs, len(self)), side="left"
        )
        start = 0
        while start < self.num_inputs:
            carried = self._ancestors_of(int(self.inputs[start]))
            stop = min(start + max(1, self.chunk_tokens - len(carried)), self.num_inputs)
            nodes = np.concatenate([carried, self.inputs[start:stop]])
            below = children[offsets[start] : offsets[stop]]
            child_offsets = offsets[start : stop + 1] - offsets[start]
            yield Chunk(
                input_ids=self.tokens[nodes],
                depths=self.depths[nodes],
                ancestors=self._ancestor_mask(nodes),
                num_carried=len(carried),
                child_offsets=child_offsets,
                child_rows=np.repeat(np.arange(stop - start), np.diff(child_offsets)),
                child_tokens=self.tokens[below],
                child_nodes=below,
            )
            start = stop

    def _ancestors_of(self, node: int) -> NDArray[np.int64]:
        found: list[int] = []
        while (node := int(self.parents[node])) >= 0:
            found.append(node)
        return np.array(found[::-1], dtype=np.int64)

    def _ancestor_mask(self, nodes: NDArray[np.int64]) -> NDArray[np.bool_]:
        mask = np.eye(len(nodes), dtype=bool)
        row_by_node = {int(node): row for row, node in enumerate(nodes)}
        for row, node in enumerate(nodes):
            parent = int(self.parents[node])
            if parent >= 0:
                mask[row] |= mask[row_by_node[parent]]
        return mask


def _shared_length(first: Sequence[int], second: Sequence[int]) -> int:
    length = 0
    for one, other in zip(first, second, strict=False):
        if one != other:
            break
        length += 1
    return length
