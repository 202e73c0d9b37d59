"""The catalogue as a token trie, and the chunks of it that a language model is fed.

Titles that begin alike share their beginning, so a node is computed once. A chunk is a set of nodes
that are fed together after a prompt: each attends to the prompt and to its own ancestors, and its
position is the prompt's length plus its depth.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from pkgllm.errors import DataError


@dataclass(frozen=True, slots=True)
class Chunk:
    """Nodes that go through the model together.

    The ancestors of each stand in the chunk too, or were fed since the prompt.
    """

    input_ids: NDArray[np.int64]
    """Shape ``(inputs,)``."""
    depths: NDArray[np.int64]
    """Tokens between the prompt and each input. Shape ``(inputs,)``."""
    visible: NDArray[np.bool_]
    """True where the row's node attends to the column's: its ancestors and itself. The columns are
    what was fed since the prompt, then the chunk. Shape ``(inputs, earlier + inputs)``."""
    num_carried: int
    """Leading inputs that are only attended to; the rows that predict are the ones after them."""
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
        chunk_tokens: Most nodes that stand after the prompt at once; one path from the root is
            never cut, so a longer title takes as many as it has.

    Raises:
        DataError: If a title tokenises to nothing, so that only its terminator is left.
        ValueError: If there are not as many names as sequences, none at all, or ``chunk_tokens`` is
            not positive.

    Example:
        >>> trie = CatalogueTrie([[5, 7, 0], [5, 0], [8, 0]], names=["a b", "a", "c"])
        >>> trie.tokens.tolist(), trie.parents.tolist(), trie.depths.tolist()
        ([5, 0, 7, 0, 8, 0], [-1, 0, 0, 2, -1, 4], [0, 1, 1, 2, 0, 1])
        >>> trie.ends.tolist(), trie.terminal_nodes.tolist(), trie.inputs.tolist()
        ([4, 2, 4, 4, 6, 6], [3, 1, 5], [0, 2, 4])
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
        ends: list[int] = []
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
                ends.append(0)
            for node in path:
                ends[node] = len(tokens)
            terminal_by_sequence[sequence] = path[-1]
            previous = sequence
        self.tokens: NDArray[np.int64] = np.array(tokens, dtype=np.int64)
        self.parents: NDArray[np.int64] = np.array(parents, dtype=np.int64)
        """Node before each node; -1 after the prompt itself."""
        self.depths: NDArray[np.int64] = np.array(depths, dtype=np.int64)
        self.ends: NDArray[np.int64] = np.array(ends, dtype=np.int64)
        """A node and all below it are the nodes from itself up to, not including, its end."""
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

    @cached_property
    def longest_input(self) -> int:
        """Positions that the longest title takes after the prompt."""
        return int(self.depths[self.inputs].max()) + 1

    def leads_to(self, columns: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return which nodes lie on the path of some column's title.

        Args:
            columns: Shape ``(columns,)``.

        Returns:
            Shape ``(nodes,)``.
        """
        counts = np.bincount(self.terminal_nodes[columns], minlength=len(self))
        before = np.concatenate([[0], np.cumsum(counts)])
        return before[self.ends] > before[:-1]

    def ancestors(self, nodes: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return all nodes above the given ones, each once, in depth-first order."""
        found = [np.empty(0, dtype=np.int64)]
        while len(nodes):
            nodes = np.unique(self.parents[nodes])
            nodes = nodes[nodes >= 0]
            found.append(nodes)
        return np.unique(np.concatenate(found))

    def chunk(
        self,
        nodes: NDArray[np.int64],
        *,
        carried: NDArray[np.int64],
        earlier: NDArray[np.int64],
    ) -> Chunk:
        """Put nodes together for one pass through the model.

        Args:
            nodes: Inputs that are asked for their children.
            carried: Inputs that are only attended to, for lack of being fed earlier.
            earlier: What was fed since the prompt, in that order.
        """
        rows = np.concatenate([carried, nodes])
        columns = np.concatenate([earlier, rows])
        start, stop = self._child_offsets[nodes], self._child_offsets[nodes + 1]
        child_nodes = self._children[joined_ranges(start, stop)]
        return Chunk(
            input_ids=self.tokens[rows],
            depths=self.depths[rows],
            visible=(columns <= rows[:, None]) & (rows[:, None] < self.ends[columns]),
            num_carried=len(carried),
            child_offsets=np.concatenate([[0], np.cumsum(stop - start)]),
            child_rows=np.repeat(np.arange(len(nodes)), stop - start),
            child_tokens=self.tokens[child_nodes],
            child_nodes=child_nodes,
        )

    @cached_property
    def _children(self) -> NDArray[np.int64]:
        """Nodes with a parent, grouped by it."""
        return np.argsort(self.parents, kind="stable")[len(self.first_nodes) :]

    @cached_property
    def _child_offsets(self) -> NDArray[np.int64]:
        """Children of node ``n`` are ``_children[offsets[n]:offsets[n + 1]]``."""
        return np.searchsorted(self.parents[self._children], np.arange(len(self) + 1))


def joined_ranges(starts: NDArray[np.int64], stops: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the whole numbers of several ranges, one range after another.

    Example:
        >>> joined_ranges(np.array([2, 7, 7]), np.array([4, 7, 9])).tolist()
        [2, 3, 7, 8]
    """
    counts = stops - starts
    before = np.cumsum(counts) - counts
    return np.repeat(starts - before, counts) + np.arange(counts.sum())


def _shared_length(first: Sequence[int], second: Sequence[int]) -> int:
    length = 0
    for one, other in zip(first, second, strict=False):
        if one != other:
            break
        length += 1
    return length
