"""Relation-aware graph attention: messages to an entity from its neighbours, by relation."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from pkgllm.randomness import stream


@dataclass(frozen=True, slots=True, eq=False)
class Edges:
    """Edges from senders to receivers, each with a relation vector."""

    receivers: Tensor
    """Entity that receives, of each edge; shape ``(edges,)``, int64."""
    senders: Tensor
    """Entity that sends; shape ``(edges,)``, int64."""
    types: Tensor
    """Row of ``coefficients``; shape ``(edges,)``, int64."""
    coefficients: Tensor
    """Weights of relation vectors in an edge's vector; shape ``(types, relations)``, float32."""


def make_edges(
    triples: NDArray[np.int64],
    num_relations: int,
    *,
    inverse: bool,
    two_hop_limit: int,
    seed: int,
) -> Edges:
    r"""Return the edges of a graph: a head receives from its tails.

    By a triple (i, k, j), i receives from j with the vector :math:`g_k`. Two triples (i, k, m),
    (m, l, j) with i other than j make an auxiliary edge of two hops, by which i receives from j
    with :math:`g_k + g_l` (Nathani et al. 2019, section 3.4).

    Args:
        triples: Distinct, shape ``(triples, 3)``.
        num_relations: Number of relations.
        inverse: Whether a tail also receives from its head, with :math:`-g_k`, as a translation
            backwards.
        two_hop_limit: Auxiliary edges of one receiver at most, drawn from all it has; 0 makes none.
        seed: Of that draw.

    Raises:
        ValueError: If the limit is negative.
    """
    if two_hop_limit < 0:
        raise ValueError(f"two_hop_limit must be from 0, got {two_hop_limit}")
    ids = np.arange(num_relations)
    direct = np.zeros((num_relations, num_relations), dtype=np.float32)
    direct[ids, ids] = 1.0
    parts, tables = [triples], [direct]
    if inverse:
        backwards = triples[:, ::-1].copy()
        backwards[:, 1] += num_relations
        parts.append(backwards)
        tables.append(-direct)
    if two_hop_limit:
        hops = _two_hops(triples, num_relations, two_hop_limit, seed)
        pairs, type_of_pair = np.unique(hops[:, 1], return_inverse=True)
        table = np.zeros((len(pairs), num_relations), dtype=np.float32)
        for column in (pairs // num_relations, pairs % num_relations):
            table[np.arange(len(pairs)), column] += 1.0
        hops[:, 1] = type_of_pair.reshape(-1) + sum(map(len, tables))
        parts.append(hops)
        tables.append(table)
    edges = torch.from_numpy(np.concatenate(parts))
    return Edges(
        receivers=edges[:, 0].contiguous(),
        senders=edges[:, 2].contiguous(),
        types=edges[:, 1].contiguous(),
        coefficients=torch.from_numpy(np.concatenate(tables)),
    )


def _two_hops(
    triples: NDArray[np.int64], num_relations: int, limit: int, seed: int
) -> NDArray[np.int64]:
    """Return distinct (first, relation * num_relations + next relation, last) paths."""
    by_head = triples[np.argsort(triples[:, 0], kind="stable")]
    hops = []
    draws = stream(seed, "two_hop_edges")
    starts = np.searchsorted(by_head[:, 0], by_head[:, 2], side="left")
    counts = np.searchsorted(by_head[:, 0], by_head[:, 2], side="right") - starts
    ends_of_heads = np.flatnonzero(np.diff(by_head[:, 0], append=-1)) + 1
    begin = 0
    for end in ends_of_heads.tolist():
        first = np.repeat(np.arange(begin, end), counts[begin:end])
        within = np.arange(len(first)) - np.repeat(
            np.cumsum(counts[begin:end]) - counts[begin:end], counts[begin:end]
        )
        second = np.repeat(starts[begin:end], counts[begin:end]) + within
        pair = by_head[first, 1] * num_relations + by_head[second, 1]
        paths = np.stack([by_head[first, 0], pair, by_head[second, 2]], axis=1)
        paths = np.unique(paths[paths[:, 0] != paths[:, 2]], axis=0)
        if len(paths) > limit:
            paths = paths[np.sort(draws.choice(len(paths), size=limit, replace=False))]
        hops.append(paths)
        begin = end
    return np.concatenate(hops)


class RelationAttention(nn.Module):
    r"""One layer of attention over the edges of each entity.

    For an edge from j to i with the vector :math:`g`, and for each head
    (Nathani et al. 2019, arXiv:1906.01195, equations 5 to 8),

    .. math::
        c = W_1 [h_i \,\|\, h_j \,\|\, g], \quad
        b = \mathrm{LeakyReLU}(w_2 \cdot c), \quad
        \alpha = \mathrm{softmax}_{\text{edges of } i}(b), \quad
        h'_i = \sum \alpha c

    An entity without edges gets zeros. Dropout falls on :math:`\alpha`. The activation
    is left to the caller, since heads are joined before it: side by side (equation 9) or as
    their mean (equation 11).

    Args:
        entity_dim: Numbers in :math:`h_i`.
        relation_dim: Numbers in :math:`g`.
        dim: Output width of a head.
        heads: Heads.
        slope: Of LeakyReLU below 0.
        dropout: Share of the :math:`\alpha` that is dropped in training.
    """

    def __init__(
        self,
        *,
        entity_dim: int,
        relation_dim: int,
        dim: int,
        heads: int,
        slope: float,
        dropout: float,
    ) -> None:
        super().__init__()
        self.heads, self.dim, self.slope = heads, dim, slope
        # W_1 by what it is applied to: each of the three is then multiplied once for an entity or
        # a type of edge, and not once for every edge.
        self.receive = nn.Parameter(torch.empty(entity_dim, heads * dim))
        self.send = nn.Parameter(torch.empty(entity_dim, heads * dim))
        self.relate = nn.Parameter(torch.empty(relation_dim, heads * dim))
        self.attend = nn.Parameter(torch.empty(heads, dim))
        self.dropout = nn.Dropout(dropout)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        r"""Draw the weights as Xavier does for the whole of :math:`W_1`, head by head."""
        inputs = 2 * self.send.shape[0] + self.relate.shape[0]
        for weight in (self.receive, self.send, self.relate):
            bound = math.sqrt(6.0 / (inputs + self.dim))
            nn.init.uniform_(weight, -bound, bound)
        bound = math.sqrt(6.0 / (self.dim + 1))
        nn.init.uniform_(self.attend, -bound, bound)

    def forward(self, entities: Tensor, relations: Tensor, edges: Edges) -> Tensor:
        """Return the sum of messages that each entity receives.

        Args:
            entities: Shape ``(entities, entity_dim)``.
            relations: Shape ``(relations, relation_dim)``.
            edges: On the same device.

        Returns:
            Shape ``(entities, heads, dim)``.
        """
        through = edges.coefficients @ relations
        messages = (
            (entities @ self.receive)[edges.receivers]
            + (entities @ self.send)[edges.senders]
            + (through @ self.relate)[edges.types]
        ).view(-1, self.heads, self.dim)
        logits = F.leaky_relu((messages * self.attend).sum(dim=-1), self.slope)
        alpha = self.dropout(_softmax_by_receiver(logits, edges.receivers, len(entities)))
        received = messages.new_zeros(len(entities), self.heads, self.dim)
        return received.index_add(0, edges.receivers, alpha.unsqueeze(-1) * messages)


def _softmax_by_receiver(logits: Tensor, receivers: Tensor, num_entities: int) -> Tensor:
    """Return weights that add up to 1 over the edges of each receiver; shape ``(edges, heads)``."""
    index = receivers.unsqueeze(-1).expand_as(logits)
    # The largest is subtracted against overflow; the weights do not depend on it.
    largest = logits.detach().new_full((num_entities, logits.shape[1]), -math.inf)
    largest = largest.scatter_reduce(0, index, logits.detach(), reduce="amax")
    weights = (logits - largest[receivers]).exp()
    total = weights.new_zeros(num_entities, logits.shape[1]).index_add(0, receivers, weights)
    return weights / total[receivers]
