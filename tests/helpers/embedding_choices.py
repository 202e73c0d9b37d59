"""Small choices of every embedding, and a graph that they learn at once."""

from dataclasses import replace

import numpy as np

from pkgllm.kge.embedding import Embedding
from pkgllm.kge.embeddings.comp_gcn import CompGcn
from pkgllm.kge.embeddings.complex import Complex
from pkgllm.kge.embeddings.hake import Hake
from pkgllm.kge.embeddings.kbgat import Kbgat
from pkgllm.kge.embeddings.node_piece import NodePiece
from pkgllm.kge.embeddings.rotate import Rotate
from pkgllm.kge.embeddings.tucker import Tucker
from pkgllm.kge.integer_triples import IntegerTriples
from pkgllm.kge.settings import Schedule

SEED = 7
SCHEDULE = Schedule(
    epochs=3,
    batch_size=16,
    num_negatives=4,
    learning_rate=0.02,
    weight_decay=1e-4,
    decay_every=2,
    decay_factor=0.5,
)
HAKE = Hake(dim=4, schedule=SCHEDULE)
KBGAT = Kbgat(
    transe_dim=4,
    dim=3,
    transe_schedule=SCHEDULE,
    attention_schedule=replace(SCHEDULE, batch_size=None),
    decoder_schedule=SCHEDULE,
    filters=2,
    two_hop_limit=2,
)
CHOICES: list[Embedding] = [
    HAKE,
    KBGAT,
    Rotate(dim=4, schedule=SCHEDULE),
    Complex(dim=4, schedule=SCHEDULE),
    Tucker(dim=4, relation_dim=3, schedule=SCHEDULE),
    CompGcn(dim=4, schedule=SCHEDULE),
    NodePiece(dim=4, schedule=SCHEDULE),
]


def ring(size: int = 12) -> IntegerTriples:
    """Everybody points to the next one, and to the one after that by another relation."""
    here = np.arange(size)
    steps = [np.stack([here, np.full(size, r), (here + r + 1) % size], axis=1) for r in range(2)]
    return IntegerTriples(np.concatenate(steps), num_entities=size, num_relations=2)
