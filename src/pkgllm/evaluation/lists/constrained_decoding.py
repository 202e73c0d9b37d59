"""Which tokens may follow while a list of a catalogue's titles is written, one title a line."""

from collections import deque
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pkgllm.evaluation.ranking.trie import CatalogueTrie


class ConstrainedList:
    """The state of one client's list: the titles so far, and the place in the trie.

    A title that is listed, or was no candidate, is closed; a node with nothing but closed titles
    below it is not allowed. Columns that share all tokens are one title; the first candidate among
    them stands for it.

    Args:
        trie: The catalogue.
        candidates: True where a column may be listed. Shape ``(columns,)``.
        k: Titles to list; fewer where there are not so many candidates.
        separator: Tokens that stand between two titles, in place of the terminator.

    Example:
        >>> trie = CatalogueTrie([[5, 7, 0], [5, 0]], names=["a b", "a"])
        >>> state = ConstrainedList(trie, np.array([True, True]), k=2, separator=[9])
        >>> fed = []
        >>> while not state.done:
        ...     allowed = state.allowed()
        ...     fed.append(state.forced() if allowed is None else state.take(int(allowed[0])))
        >>> fed, state.columns
        ([5, 9, 5, 7, None], [1, 0])
    """

    def __init__(
        self,
        trie: CatalogueTrie,
        candidates: NDArray[np.bool_],
        *,
        k: int,
        separator: Sequence[int],
    ) -> None:
        self.columns: list[int] = []
        """Columns of the titles, in the order of the list."""
        self._trie = trie
        self._candidates = candidates
        self._separator = tuple(separator)
        self._forced: deque[int] = deque()
        self._node = -1
        is_open = np.zeros(len(trie), dtype=bool)
        is_open[trie.terminal_nodes[candidates]] = True
        before = np.concatenate([[0], np.cumsum(is_open)])
        self._num_open = before[trie.ends] - before[:-1]
        """Open titles at or below each node. Shape ``(nodes,)``."""
        self._titles_left = min(k, int(is_open.sum()))

    @property
    def done(self) -> bool:
        """True where the list is complete."""
        return self._titles_left == 0

    def allowed(self) -> NDArray[np.int64] | None:
        """Return the nodes among which the next token is chosen; None where it is forced."""
        if self._forced:
            return None
        if self._node < 0:
            nodes = self._trie.first_nodes
        else:
            nodes, _ = self._trie.children(np.array([self._node]))
        allowed: NDArray[np.int64] = nodes[self._num_open[nodes] > 0]
        return allowed

    def forced(self) -> int:
        """Return the next token of a separator that was begun."""
        return self._forced.popleft()

    def take(self, node: int) -> int | None:
        """Go to an allowed node, and return the token to be fed for it; None after the last title.

        A title's terminator is never fed: a separator goes in instead.
        """
        self._node = node
        if self._trie.ends[node] > node + 1:
            return int(self._trie.tokens[node])
        self._close(node)
        if self.done:
            return None
        self._forced.extend(self._separator)
        return self._forced.popleft()

    def _close(self, terminal: int) -> None:
        sharing = self._candidates & (self._trie.terminal_nodes == terminal)
        self.columns.append(int(np.flatnonzero(sharing)[0]))
        self._titles_left -= 1
        node = terminal
        while node >= 0:
            self._num_open[node] -= 1
            node = int(self._trie.parents[node])
        self._node = -1


class TitleLists:
    """The lists of a batch, token by token: the most probable allowed token each time."""

    def __init__(self, trie: CatalogueTrie, lists: Sequence[ConstrainedList]) -> None:
        self._tokens = trie.tokens
        self._lists = lists

    def write(self, logits: Tensor) -> list[int | None]:
        """Return the token to feed next in each row; None where its list is complete."""
        choices = [None if state.done else state.allowed() for state in self._lists]
        best = self._best_of(logits, choices)
        fed: list[int | None] = []
        for state, choice in zip(self._lists, choices, strict=True):
            if state.done:
                fed.append(None)
            else:
                fed.append(state.forced() if choice is None else state.take(next(best)))
        return fed

    def _best_of(
        self, logits: Tensor, choices: Sequence[NDArray[np.int64] | None]
    ) -> Iterator[int]:
        """Yield the most probable node of each choice; one transfer for all rows."""
        open_rows = [(row, nodes) for row, nodes in enumerate(choices) if nodes is not None]
        if not open_rows:
            return
        sizes = [len(nodes) for _, nodes in open_rows]
        rows = torch.from_numpy(np.repeat([row for row, _ in open_rows], sizes))
        nodes = np.concatenate([nodes for _, nodes in open_rows])
        tokens = torch.from_numpy(self._tokens[nodes])
        logits_of_nodes = logits[rows.to(logits.device), tokens.to(logits.device)].cpu().numpy()
        edges = np.cumsum(sizes)[:-1]
        for part, scores in zip(
            np.split(nodes, edges), np.split(logits_of_nodes, edges), strict=True
        ):
            yield int(part[scores.argmax()])
