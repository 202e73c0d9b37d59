"""Titles' scores from a trie, for several clients at once, computed only where they can matter.

Log-probabilities are at most 0, so scores only fall along a path: a subtree whose beginning already
lies below a floor holds no title above it and need not be visited.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pkgllm.errors import ModelError
from pkgllm.evaluation.ranking.trie import CatalogueTrie

TIE_NATS = 1e-4
"""Titles whose scores differ by no more count as tied: another batch shape rounds differently."""

_MARGIN_NATS = 10 * TIE_NATS
"""How far a floor lies below the score that it protects, so that nothing tied with it is lost."""

_WIDTH_PER_TITLE = 2
"""Nodes to go on from at a time per title of a list whose floor is not known yet; only the speed
depends on it."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Nodes that go through the model together, ordered by client."""

    clients: NDArray[np.int64]
    """Shape ``(rows,)``."""
    input_ids: NDArray[np.int64]
    """Shape ``(rows,)``."""
    depths: NDArray[np.int64]
    """Tokens between the prompt and each. Shape ``(rows,)``."""
    path: NDArray[np.int64]
    """Slots of each node's ancestors by their depth, and of itself, last; -1 beyond. A slot is a
    place in the order of feeding, these rows included. Shape ``(rows, longest)``."""
    child_tokens: NDArray[np.int64]
    """Tokens to look up in the rows' distributions, row by row. Shape ``(children,)``."""
    child_offsets: NDArray[np.int64]
    """Row ``r`` has the children ``child_offsets[r]:child_offsets[r + 1]``."""


class Reader(Protocol):
    """A model that has read one prompt per client, and is fed pieces of titles after them."""

    @property
    def capacity(self) -> int:
        """Slots: nodes that can be attended to at once, over all clients."""
        ...

    def first_log_probs(self, tokens: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return log-probabilities of tokens after each prompt, shape ``(clients, tokens)``."""
        ...

    def feed(self, rows: Rows) -> NDArray[np.float32]:
        """Feed rows into the next slots and return their children's log-probabilities."""
        ...

    def forget(self, num_kept: int) -> None:
        """Free all slots but the first ones."""
        ...


class TrieSearch:
    """The scores of a catalogue's titles after each client's prompt, as far as they were visited.

    Raises:
        ValueError: If the reader cannot hold the longest title.
    """

    def __init__(
        self, trie: CatalogueTrie, reader: Reader, *, where: Sequence[str], rows_at_once: int
    ) -> None:
        if reader.capacity < trie.longest_input:
            raise ValueError(
                f"the longest title takes {trie.longest_input} slots, got {reader.capacity}"
            )
        self.errors: dict[int, ModelError] = {}
        """What went wrong, by client; such a client is not visited further."""
        self.num_fed = np.zeros(len(where), dtype=np.int64)
        """Nodes that went through the model for each client, each as often as it did."""
        self._trie = trie
        self._reader = reader
        self._where = where
        self._rows_at_once = rows_at_once
        shape = (len(where), len(trie))
        self._sums = np.full(shape, -np.inf)
        self._sums[:, trie.first_nodes] = reader.first_log_probs(trie.tokens[trie.first_nodes])
        self._fed = np.zeros(shape, dtype=bool)
        self._slots = np.full(shape, -1, dtype=np.int64)
        self._num_slots = 0

    @property
    def scores(self) -> NDArray[np.float64]:
        """Log-probability of each title and terminator in nats; -inf where it was not visited.

        Shape ``(clients, columns)``.
        """
        return self._sums[:, self._trie.terminal_nodes]

    def visit_what_matters(
        self,
        candidates: NDArray[np.bool_],
        gold: Sequence[NDArray[np.int64]],
        *,
        top_k: int,
    ) -> None:
        """Visit the candidates that decide the ranks of gold columns, and the ``top_k`` best.

        Those are the ones that score at least as high as a client's worst gold column. Afterwards
        their scores are exact, and any other candidate, visited or not, has a score below them.

        Args:
            candidates: True where a column competes. Shape ``(clients, columns)``.
            gold: For each client, columns of the held-out items, all of them candidates.
            top_k: Length of the list of best candidates.
        """
        is_gold = np.zeros_like(candidates)
        for client, columns in enumerate(gold):
            is_gold[client, columns] = True
        self.visit(is_gold)
        floors = np.where(is_gold, self.scores, np.inf).min(axis=1)
        self.visit(candidates, floors=floors)
        reached = (candidates & (self.scores >= floors[:, None])).sum(axis=1)
        self._visit_best(candidates, np.flatnonzero(reached < top_k).tolist(), top_k)

    def visit(
        self, columns: NDArray[np.bool_], *, floors: NDArray[np.float64] | None = None
    ) -> None:
        """Visit all titles of some columns, or those that score at least a client's floor.

        Args:
            columns: Shape ``(clients, columns)``.
            floors: Nats, shape ``(clients,)``.
        """
        wanted = self._paths_to(columns)
        lowest = np.full(len(wanted), -np.inf) if floors is None else floors - _MARGIN_NATS
        num_kept = self._num_slots
        for first, stop, needed in self._parts(wanted, self._reader.capacity - num_kept):
            if self._num_slots + needed > self._reader.capacity:
                # No slot is kept any more where a single pass needed them all.
                self._forget(min(num_kept, self._num_slots))
            for nodes in self._trie.inputs_by_depth:
                nodes = nodes[slice(*np.searchsorted(nodes, [first, stop]))]
                promising = self._sums[:, nodes] >= lowest[:, None]
                clients, at = np.nonzero(promising & wanted[:, nodes] & ~self._fed[:, nodes])
                below = self._below(clients, nodes[at], wanted)
                # What is left fits into one pass, which costs less than one for each depth.
                if len(below[1]) <= self._rows_at_once:
                    self._feed(*below, wanted)
                else:
                    self._feed(clients, nodes[at], wanted)

    def _parts(self, wanted: NDArray[np.bool_], room: int) -> Iterator[tuple[int, int, int]]:
        """Yield ranges of nodes that hold whole subtrees, and how many slots each needs at most.

        A part needs no more than there is room for, unless it is a single subtree.
        """
        counts = np.zeros(len(self._trie) + 1, dtype=np.int64)
        counts[self._trie.inputs + 1] = (wanted & ~self._fed).sum(axis=0)[self._trie.inputs]
        before = np.cumsum(counts)
        edges = [*self._trie.first_nodes.tolist(), len(self._trie)]
        start = 0
        for here, following in zip(edges[1:], [*edges[2:], None], strict=True):
            if following is None or before[following] - before[start] > room:
                yield start, here, int(before[here] - before[start])
                start = here

    def _below(
        self, clients: NDArray[np.int64], nodes: NDArray[np.int64], wanted: NDArray[np.bool_]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return clients and nodes of all inputs from some nodes down that were not fed yet."""
        edges = np.zeros((len(wanted), len(self._trie) + 1), dtype=np.int64)
        np.add.at(edges, (clients, nodes), 1)
        np.add.at(edges, (clients, self._trie.ends[nodes]), -1)
        is_below = edges.cumsum(axis=1)[:, self._trie.inputs] > 0
        inputs = self._trie.inputs
        clients, at = np.nonzero(is_below & wanted[:, inputs] & ~self._fed[:, inputs])
        return clients, inputs[at]

    def _visit_best(self, candidates: NDArray[np.bool_], clients: list[int], top_k: int) -> None:
        """Go on from the best nodes until nothing left can be among the ``top_k`` best titles."""
        wanted = self._paths_to(candidates)
        is_input = np.zeros(len(self._trie), dtype=bool)
        is_input[self._trie.inputs] = True
        width = _WIDTH_PER_TITLE * top_k
        while clients:
            batches: list[tuple[int, NDArray[np.int64]]] = []
            for client in clients:
                sums, scores = self._sums[client], self.scores[client, candidates[client]]
                lowest = _kth_best(scores, top_k) - _MARGIN_NATS
                is_open = wanted[client] & is_input & ~self._fed[client]
                nodes = np.flatnonzero(is_open & (sums >= lowest) & (sums > -np.inf))
                if len(nodes) > width:
                    nodes = np.sort(nodes[np.argpartition(sums[nodes], -width)[-width:]])
                if len(nodes) and client not in self.errors:
                    batches.append((client, nodes))
            clients = [client for client, _ in batches]
            if batches:
                repeated = [np.full(len(nodes), client) for client, nodes in batches]
                nodes = np.concatenate([nodes for _, nodes in batches])
                self._feed(np.concatenate(repeated), nodes, wanted)

    def _paths_to(self, columns: NDArray[np.bool_]) -> NDArray[np.bool_]:
        wanted = np.stack([self._trie.leads_to(row) for row in columns])
        # Also what was met beside an earlier path, when nobody asked for it.
        for client in np.flatnonzero((np.isnan(self._sums) & wanted).any(axis=1)):
            self._fail(int(client))
        wanted[list(self.errors)] = False
        return wanted

    def _feed(
        self, clients: NDArray[np.int64], nodes: NDArray[np.int64], wanted: NDArray[np.bool_]
    ) -> None:
        """Feed nodes that were not fed yet, and note their children's sums."""
        num_parts = -(-len(nodes) // self._rows_at_once)
        for part in np.array_split(np.arange(len(nodes)), max(num_parts, 1)):
            if len(part):
                self._feed_at_once(clients[part], nodes[part], wanted)

    def _feed_at_once(
        self, clients: NDArray[np.int64], nodes: NDArray[np.int64], wanted: NDArray[np.bool_]
    ) -> None:
        absent = self._absent_ancestors(clients, nodes)
        if self._num_slots + len(absent[1]) + len(nodes) > self._reader.capacity:
            self._forget(0)
            absent = self._absent_ancestors(clients, nodes)
        if len(absent[1]) + len(nodes) > self._reader.capacity:
            middle = len(nodes) // 2
            self._feed_at_once(clients[:middle], nodes[:middle], wanted)
            self._feed_at_once(clients[middle:], nodes[middle:], wanted)
            return
        for depth in np.unique(self._trie.depths[absent[1]]):
            at = self._trie.depths[absent[1]] == depth
            self._push(absent[0][at], absent[1][at], nodes[:0], np.zeros(at.sum() + 1, np.int64))
        children, offsets = self._trie.children(nodes)
        log_probs = self._push(clients, nodes, children, offsets)
        counts = np.diff(offsets)
        owners, depths = np.repeat(clients, counts), np.repeat(self._trie.depths[nodes], counts)
        # A child may be fed in the same pass, and its sum must stand before its own children's.
        for depth in np.unique(depths):
            at = depths == depth
            parents = self._trie.parents[children[at]]
            self._sums[owners[at], children[at]] = self._sums[owners[at], parents] + log_probs[at]
        self._fed[clients, nodes] = True
        broken = np.isnan(log_probs) & wanted[owners, children]
        for client in np.unique(owners[broken]):
            self._fail(int(client))
            wanted[client] = False

    def _absent_ancestors(
        self, clients: NDArray[np.int64], nodes: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return clients and nodes of the ancestors that neither a slot nor these rows hold."""
        above = self._trie.paths[nodes].astype(np.int64)
        held = self._slots[clients[:, None], above] >= 0
        rows, at = np.nonzero((above >= 0) & ~held)
        size = len(self._trie)
        keys = np.setdiff1d(clients[rows] * size + above[rows, at], clients * size + nodes)
        return keys // size, keys % size

    def _push(
        self,
        clients: NDArray[np.int64],
        nodes: NDArray[np.int64],
        children: NDArray[np.int64],
        child_offsets: NDArray[np.int64],
    ) -> NDArray[np.float32]:
        """Feed nodes whose ancestors are all held; return their children's log-probabilities."""
        self._slots[clients, nodes] = self._num_slots + np.arange(len(nodes))
        depths = self._trie.depths[nodes]
        above = self._trie.paths[nodes, : depths.max() + 1].astype(np.int64)
        self.num_fed += np.bincount(clients, minlength=len(self.num_fed))
        self._num_slots += len(nodes)
        return self._reader.feed(
            Rows(
                clients=clients,
                input_ids=self._trie.tokens[nodes],
                depths=depths,
                path=np.where(above >= 0, self._slots[clients[:, None], above], -1),
                child_tokens=self._trie.tokens[children],
                child_offsets=child_offsets,
            )
        )

    def _forget(self, num_kept: int) -> None:
        self._slots[self._slots >= num_kept] = -1
        self._num_slots = num_kept
        self._reader.forget(num_kept)

    def _fail(self, client: int) -> None:
        self.errors[client] = ModelError(
            f"{self._where[client]}: log-probabilities of titles must be numbers, got NaN; the "
            "model may have diverged, or its dtype may be too narrow for it"
        )


def _kth_best(scores: NDArray[np.float64], k: int) -> float:
    return float(np.partition(scores, -k)[-k]) if k <= len(scores) else -np.inf
