"""Titles' scores from a trie, computed only where they can matter.

Log-probabilities are at most 0, so scores only fall along a path: a subtree whose beginning already
lies below a floor holds no title above it and need not be visited.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pkgllm.errors import ModelError
from pkgllm.evaluation.trie import CatalogueTrie, Chunk, joined_ranges

TIE_NATS = 1e-4
"""Titles whose scores differ by no more count as tied: another batch shape rounds differently."""

_MARGIN_NATS = 10 * TIE_NATS
"""How far a floor lies below the score that it protects, so that nothing tied with it is lost."""

_NATS_PER_TOKEN = 1.5
"""What a further token may cost for its node to be fed before it is known to lie above the floor;
only the speed depends on it."""

_WIDTH_PER_TITLE = 2
"""Width of the beam that looks for a first floor, per title of the list that is asked for; only the
speed depends on it, as long as it is at least 1."""


class Reader(Protocol):
    """A model that has read a prompt, and is fed pieces of titles after it."""

    def first_log_probs(self, tokens: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the log-probabilities of tokens right after the prompt, shape ``(tokens,)``."""
        ...

    def feed(self, chunk: Chunk) -> NDArray[np.float32]:
        """Feed a chunk after all that was fed, and return its children's log-probabilities."""
        ...

    def forget(self) -> None:
        """Go back to the prompt's end."""
        ...


class TrieSearch:
    """The scores of a catalogue's titles after one prompt, as far as they have been visited.

    Args:
        trie: The catalogue.
        reader: Has read the prompt.
        where: Begins error messages.
    """

    def __init__(self, trie: CatalogueTrie, reader: Reader, *, where: str) -> None:
        self._trie = trie
        self._reader = reader
        self._where = where
        self._first = reader.first_log_probs(trie.tokens[trie.first_nodes])
        self._sums = np.full(len(trie), -np.inf)
        self.num_fed = 0
        """Nodes that went through the model, each as often as it did."""

    @property
    def scores(self) -> NDArray[np.float64]:
        """Log-probability of each title and terminator in nats; -inf where it was not visited.

        Shape ``(columns,)``.
        """
        return self._sums[self._trie.terminal_nodes]

    def visit_what_matters(
        self, candidates: NDArray[np.bool_], gold: NDArray[np.int64], *, top_k: int
    ) -> None:
        """Visit the candidates that decide the ranks of gold columns, and the ``top_k`` best.

        Those are the ones that score at least as high as the worst gold column. Afterwards their
        scores are exact, and any other candidate, visited or not, has a score below them.

        Args:
            candidates: True where a column competes. Shape ``(columns,)``.
            gold: Columns of the held-out items, all of them candidates. Shape ``(held_out,)``.
            top_k: Length of the list of best candidates.

        Raises:
            ModelError: As :meth:`visit` does.
        """
        is_gold = np.zeros_like(candidates)
        is_gold[gold] = True
        self.visit(is_gold)
        worst_gold = float(self.scores[gold].min(initial=np.inf))
        self.visit(candidates, floor=worst_gold)
        if np.count_nonzero(self.scores[candidates] >= worst_gold) < top_k:
            # The k-th best of any titles is a floor; likely ones make it a high one.
            self.visit(candidates, width=_WIDTH_PER_TITLE * top_k)
            self.visit(candidates, floor=_kth_best(self.scores[candidates], top_k))

    def visit(
        self, columns: NDArray[np.bool_], *, floor: float = -np.inf, width: int | None = None
    ) -> None:
        """Visit the titles of columns that score high enough; all of them unless told otherwise.

        Args:
            columns: True where the title is asked for. Shape ``(columns,)``.
            floor: Lowest score that matters, in nats.
            width: Go on from no more nodes than this at a time, the best ones, as a beam does. So
                many titles are visited at least, but not always the best.

        Raises:
            ModelError: If the log-probability of a node on the way to such a title is NaN.
        """
        trie = self._trie
        wanted = trie.leads_to(columns)
        aim = _Aim(wanted, trie.inputs[wanted[trie.inputs]], floor - _MARGIN_NATS, width)
        self._note(trie.first_nodes, self._first, aim)
        parts = [trie.first_nodes[wanted[trie.first_nodes]]]
        while parts:
            parts.extend(self._visit_below(parts.pop(), aim))

    def _visit_below(self, frontier: NDArray[np.int64], aim: "_Aim") -> list[NDArray[np.int64]]:
        """Visit all below some nodes, or return them in parts when that is too much at once."""
        trie = self._trie
        carried, fed = trie.ancestors(frontier), np.empty(0, dtype=np.int64)
        try:
            while len(frontier := self._promising(frontier, aim)):
                room = trie.chunk_tokens - len(fed) - len(carried)
                nodes = self._ahead(frontier, aim)
                if len(nodes) > room:
                    nodes = frontier
                # A lone node goes in whatever its path takes, or it never would.
                if len(nodes) > room and (len(fed) or len(nodes) > 1):
                    return self._split(frontier, aim)
                chunk = trie.chunk(nodes, carried=carried, earlier=fed)
                self._note(chunk.child_nodes, self._reader.feed(chunk), aim)
                self.num_fed += len(chunk.input_ids)
                fed, carried = np.concatenate([fed, carried, nodes]), carried[:0]
                below = np.setdiff1d(chunk.child_nodes, nodes)
                frontier = below[np.isin(below, aim.inputs)]
            return []
        finally:
            self._reader.forget()

    def _promising(self, nodes: NDArray[np.int64], aim: "_Aim") -> NDArray[np.int64]:
        nodes = nodes[self._sums[nodes] >= aim.lowest]
        if aim.width is not None and len(nodes) > aim.width:
            best = np.argpartition(self._sums[nodes], -aim.width)[-aim.width :]
            nodes = np.sort(nodes[best])
        return nodes

    def _ahead(self, frontier: NDArray[np.int64], aim: "_Aim") -> NDArray[np.int64]:
        """Return the frontier and what lies so little below it that it may well be needed."""
        trie = self._trie
        if aim.width is not None:
            return frontier
        starts, stops = self._subtrees(frontier, aim)
        nodes = aim.inputs[joined_ranges(starts, stops)]
        if aim.lowest == -np.inf:
            return nodes
        deepest = trie.depths[frontier] + (self._sums[frontier] - aim.lowest) / _NATS_PER_TOKEN
        return nodes[trie.depths[nodes] <= np.repeat(deepest, stops - starts)]

    def _split(self, frontier: NDArray[np.int64], aim: "_Aim") -> list[NDArray[np.int64]]:
        """Cut a frontier into parts that fit with all above and below them, or are one node."""
        starts, stops = self._subtrees(frontier, aim)
        needed = np.cumsum(stops - starts + self._trie.depths[frontier])
        edges = [0]
        while edges[-1] < len(frontier):
            taken = int(needed[edges[-1] - 1]) if edges[-1] else 0
            fitting = np.searchsorted(needed, taken + self._trie.chunk_tokens, side="right")
            edges.append(max(int(fitting), edges[-1] + 1))
        return np.split(frontier, edges[1:-1])

    def _subtrees(
        self, nodes: NDArray[np.int64], aim: "_Aim"
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return where each node's subtree starts and stops among the inputs."""
        ends = self._trie.ends[nodes]
        return np.searchsorted(aim.inputs, nodes), np.searchsorted(aim.inputs, ends)

    def _note(self, nodes: NDArray[np.int64], log_probs: NDArray[np.float32], aim: "_Aim") -> None:
        """Add the log-probabilities of nodes to their parents' sums, parents before children."""
        trie = self._trie
        if np.isnan(log_probs[aim.wanted[nodes]]).any():
            raise ModelError(
                f"{self._where}: log-probabilities of titles must be numbers, got NaN; the model "
                "may have diverged, or its dtype may be too narrow for it"
            )
        for depth in np.unique(trie.depths[nodes]):
            at = trie.depths[nodes] == depth
            above = self._sums[trie.parents[nodes[at]]] if depth else 0.0
            self._sums[nodes[at]] = above + log_probs[at]


@dataclass(frozen=True, slots=True)
class _Aim:
    """What a visit is after."""

    wanted: NDArray[np.bool_]
    """Nodes on the path of a title that is asked for. Shape ``(nodes,)``."""
    inputs: NDArray[np.int64]
    """Those of them that predict another node, in depth-first order."""
    lowest: float
    """Sum, in nats, below which a node and all below it do not matter."""
    width: int | None
    """Nodes to go on from at a time, the best ones; None for all."""


def _kth_best(scores: NDArray[np.float64], k: int) -> float:
    return float(np.partition(scores, -k)[-k]) if k <= len(scores) else -np.inf
