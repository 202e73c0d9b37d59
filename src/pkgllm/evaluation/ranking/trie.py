"""The catalogue as a token trie: titles that begin alike share their beginning."""

from collections.abc import Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from pkgllm.corpora.catalogue import Catalogue
from pkgllm.errors import DataError
from pkgllm.prompts.prompts import PromptWriter


class CatalogueTrie:
    """Every title of a catalogue, token by token, in depth-first order.

    Args:
        sequences: Token ids of each column's title, ending with the terminator. Columns may share
            a sequence; they then share a node and tie.
        names: Surface form of each column, for messages.

    Raises:
        DataError: If a title tokenises to nothing, so that only its terminator is left.
        ValueError: If there are not as many names as sequences, or none at all.

    Example:
        >>> trie = CatalogueTrie([[5, 7, 0], [5, 0], [8, 0]], names=["a b", "a", "c"])
        >>> trie.tokens.tolist(), trie.parents.tolist(), trie.depths.tolist()
        ([5, 0, 7, 0, 8, 0], [-1, 0, 0, 2, -1, 4], [0, 1, 1, 2, 0, 1])
        >>> trie.ends.tolist(), trie.terminal_nodes.tolist(), trie.inputs.tolist()
        ([4, 2, 4, 4, 6, 6], [3, 1, 5], [0, 2, 4])
    """

    def __init__(self, sequences: Sequence[Sequence[int]], *, names: Sequence[str]) -> None:
        if not sequences or len(sequences) != len(names):
            raise ValueError(
                f"every title needs a name, got {len(sequences)} titles and {len(names)} names"
            )
        for sequence, name in zip(sequences, names, strict=True):
            if len(sequence) < 2:
                raise DataError(
                    f"title {name!r}: a title must have at least one token before its terminator, "
                    "got none; rename the item or choose a base model whose tokenizer knows it"
                )
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
            shared = shared_length(previous, sequence)
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

    @cached_property
    def inputs_by_depth(self) -> tuple[NDArray[np.int64], ...]:
        """Inputs of each depth, from 0, in depth-first order."""
        depths = self.depths[self.inputs]
        return tuple(self.inputs[depths == depth] for depth in range(self.longest_input))

    @cached_property
    def paths(self) -> NDArray[np.int32]:
        """Ancestors of each input by their depth, and itself, last; -1 beyond.

        Shape ``(nodes, longest_input)``; rows of terminators hold nothing.
        """
        paths = np.full((len(self), self.longest_input), -1, dtype=np.int32)
        for depth, nodes in enumerate(self.inputs_by_depth):
            if depth:
                paths[nodes] = paths[self.parents[nodes]]
            paths[nodes, depth] = nodes
        return paths

    def children(self, nodes: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the children of some nodes and where each node's begin among them.

        Returns:
            Children in the order of their parents, shape ``(children,)``, and offsets so that those
            of ``nodes[i]`` are ``offsets[i]:offsets[i + 1]``, shape ``(len(nodes) + 1,)``.
        """
        starts, stops = self._child_offsets[nodes], self._child_offsets[nodes + 1]
        offsets = np.concatenate([[0], np.cumsum(stops - starts)])
        return self._children[_joined_ranges(starts, stops)], offsets

    @cached_property
    def _children(self) -> NDArray[np.int64]:
        """Nodes with a parent, grouped by it."""
        return np.argsort(self.parents, kind="stable")[len(self.first_nodes) :]

    @cached_property
    def _child_offsets(self) -> NDArray[np.int64]:
        """Children of node ``n`` are ``_children[offsets[n]:offsets[n + 1]]``."""
        return np.searchsorted(self.parents[self._children], np.arange(len(self) + 1))


def _joined_ranges(starts: NDArray[np.int64], stops: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the whole numbers of several ranges, one range after another.

    Example:
        >>> _joined_ranges(np.array([2, 7, 7]), np.array([4, 7, 9])).tolist()
        [2, 3, 7, 8]
    """
    counts = stops - starts
    before = np.cumsum(counts) - counts
    return np.repeat(starts - before, counts) + np.arange(counts.sum())


def shared_length(first: Sequence[int], second: Sequence[int]) -> int:
    """Return how many tokens two sequences begin with alike."""
    length = 0
    for one, other in zip(first, second, strict=False):
        if one != other:
            break
        length += 1
    return length


def make_trie(writer: PromptWriter, catalogue: Catalogue) -> CatalogueTrie:
    """Return a catalogue as a model reads it."""
    sequences = [writer.completion_ids(name) for name in catalogue.names]
    return CatalogueTrie(sequences, names=catalogue.names)
