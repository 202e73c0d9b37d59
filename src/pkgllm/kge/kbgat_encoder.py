"""The encoder of KBGAT's first stage, and how PyKEEN reads vectors from it."""

from typing import Literal

import torch
from pykeen.nn.representation import Representation
from torch import Tensor, nn
from torch.nn import functional as F

from pkgllm.kge.kbgat_attention import Edges, RelationAttention


class AttentionEncoder(nn.Module):
    r"""Two layers of relation-aware attention, and a map of what went in (Nathani et al. 2019).

    With :math:`H` the entities, scaled to length 1, and :math:`G` the relations (equations 9 to
    12),

    .. math::
        H' = \mathrm{ELU}(\mathrm{heads}(H, G)), \quad G' = G W^R, \quad
        H'' = \mathrm{ELU}(\mathrm{mean\ of\ heads}(H', G')), \quad
        \mathrm{out} = \frac{H W^E + H''}{\|H W^E + H''\|_2}

    :math:`H` and :math:`G` start at the vectors of the stage before and are trained too. The result
    is computed once for each step of the optimizer, however often vectors are read.

    Args:
        entities: Where :math:`H` starts, shape ``(entities, dim)``.
        relations: Where :math:`G` starts, shape ``(relations, dim)``.
        edges: Of the training triples.
        dim: Output width of a head of the first layer; the output has ``heads * dim``.
        heads: Heads of the first layer.
        output_heads: Heads of the second one, of which the mean is taken.
        slope: Of LeakyReLU.
        dropout: Of the attention and of the first layer's output.
    """

    def __init__(
        self,
        entities: Tensor,
        relations: Tensor,
        edges: Edges,
        *,
        dim: int,
        heads: int,
        output_heads: int,
        slope: float,
        dropout: float,
    ) -> None:
        super().__init__()
        self.output_dim = heads * dim
        self._start = (entities.detach().clone(), relations.detach().clone())
        self.entities = nn.Parameter(torch.empty_like(entities))
        self.relations = nn.Parameter(torch.empty_like(relations))
        self.hidden = RelationAttention(
            entity_dim=entities.shape[1],
            relation_dim=relations.shape[1],
            dim=dim,
            heads=heads,
            slope=slope,
            dropout=dropout,
        )
        self.output = RelationAttention(
            entity_dim=self.output_dim,
            relation_dim=self.output_dim,
            dim=self.output_dim,
            heads=output_heads,
            slope=slope,
            dropout=dropout,
        )
        self.relation_map = nn.Parameter(torch.empty(relations.shape[1], self.output_dim))
        self.entity_map = nn.Parameter(torch.empty(entities.shape[1], self.output_dim))
        self.dropout = nn.Dropout(dropout)
        for name in ("receivers", "senders", "types", "coefficients"):
            self.register_buffer(f"_{name}", getattr(edges, name), persistent=False)
        self._encoded: tuple[Tensor, Tensor] | None = None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set the vectors to where they start, and draw both maps anew."""
        with torch.no_grad():
            self.entities.copy_(self._start[0])
            self.relations.copy_(self._start[1])
        nn.init.xavier_uniform_(self.relation_map)
        nn.init.xavier_uniform_(self.entity_map)
        self._encoded = None

    def post_parameter_update(self) -> None:
        """Forget the vectors from before the optimizer's step."""
        self._encoded = None

    def train(self, mode: bool = True) -> "AttentionEncoder":
        """Forget the vectors of the other mode, with or without dropout."""
        self._encoded = None
        return super().train(mode)

    def forward(self) -> tuple[Tensor, Tensor]:
        """Return the entities and the relations, each ``(number, heads * dim)``."""
        if self._encoded is None:
            self._encoded = self._encode()
        return self._encoded

    def _encode(self) -> tuple[Tensor, Tensor]:
        edges = Edges(*(getattr(self, f"_{name}") for name in Edges.__slots__))
        entities = F.normalize(self.entities, dim=1)
        first = F.elu(self.hidden(entities, self.relations, edges).flatten(1))
        relations = self.relations @ self.relation_map
        second = F.elu(self.output(self.dropout(first), relations, edges).mean(dim=1))
        return F.normalize(entities @ self.entity_map + second, dim=1), relations


class EncodedRepresentation(Representation):
    """Vectors of an encoder, as PyKEEN's models take them.

    Args:
        encoder: Is shared by the entities and the relations of a model.
        part: Which vectors these are.
    """

    def __init__(self, encoder: AttentionEncoder, part: Literal["entities", "relations"]) -> None:
        start: Tensor = getattr(encoder, part)
        super().__init__(max_id=len(start), shape=encoder.output_dim, unique=False)
        self.encoder = encoder
        self._place = ("entities", "relations").index(part)

    def _plain_forward(self, indices: Tensor | None = None) -> Tensor:
        vectors: Tensor = self.encoder()[self._place]
        return vectors if indices is None else vectors[indices]
