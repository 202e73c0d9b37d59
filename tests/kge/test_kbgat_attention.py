import math
from collections import defaultdict

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from pkgllm.kge.kbgat_attention import Edges, RelationAttention, make_edges
from pkgllm.kge.kbgat_encoder import AttentionEncoder

Array = NDArray[np.float64]
NUM_ENTITIES, NUM_RELATIONS = 6, 3
TRIPLES = np.array([[0, 0, 1], [0, 1, 2], [0, 0, 2], [1, 2, 3], [3, 0, 0], [2, 1, 2], [4, 1, 0]])
SLOPE = 0.2


def heard_edges(
    triples: NDArray[np.int64], relations: Array, *, inverse: bool
) -> dict[int, list[tuple[int, Array]]]:
    """For each entity whom it hears and through which vector, written down triple by triple."""
    neighbours: dict[int, list[tuple[int, Array]]] = defaultdict(list)
    for head, relation, tail in triples.tolist():
        neighbours[head].append((tail, relations[relation]))
        if inverse:
            neighbours[tail].append((head, -relations[relation]))
    return neighbours


def by_loops(
    layer: RelationAttention, entities: Array, relations: Array, *, inverse: bool
) -> Array:
    """Equations 5 to 8 for one entity and one head at a time."""
    joined = np.concatenate([w.detach().numpy() for w in (layer.receive, layer.send, layer.relate)])
    attend = layer.attend.detach().numpy()
    result = np.zeros((len(entities), layer.heads, layer.dim))
    for entity, edges in heard_edges(TRIPLES, relations, inverse=inverse).items():
        for head in range(layer.heads):
            w1 = joined[:, head * layer.dim : (head + 1) * layer.dim].T
            messages, logits = [], []
            for sender, vector in edges:
                message = w1 @ np.concatenate([entities[entity], entities[sender], vector])
                logit = float(attend[head] @ message)
                messages.append(message)
                logits.append(logit if logit > 0 else SLOPE * logit)
            total = sum(math.exp(logit) for logit in logits)
            for message, logit in zip(messages, logits, strict=True):
                result[entity, head] += math.exp(logit) / total * message
    return result


def elu(x: Array) -> Array:
    return np.where(x > 0, x, np.exp(x) - 1)


def edges_of(*, inverse: bool, limit: int = 0) -> Edges:
    edges = make_edges(TRIPLES, NUM_RELATIONS, inverse=inverse, two_hop_limit=limit, seed=0)
    return Edges(edges.receivers, edges.senders, edges.types, edges.coefficients.double())


@pytest.mark.parametrize("inverse", [False, True])
def test_a_layer_is_the_paper_s_equations(inverse: bool) -> None:
    torch.manual_seed(0)
    layer = RelationAttention(
        entity_dim=4, relation_dim=3, dim=5, heads=2, slope=SLOPE, dropout=0.5
    ).double()
    layer.eval()
    entities, relations = torch.randn(NUM_ENTITIES, 4).double(), torch.randn(3, 3).double()
    sums = layer(entities, relations, edges_of(inverse=inverse)).detach().numpy()
    wanted = by_loops(layer, entities.numpy(), relations.numpy(), inverse=inverse)
    assert sums == pytest.approx(wanted, abs=1e-9)
    assert (sums[5] == 0).all()  # it has no edge


def test_large_logits_do_not_overflow() -> None:
    layer = RelationAttention(entity_dim=2, relation_dim=2, dim=2, heads=1, slope=1.0, dropout=0.0)
    sums = layer(
        torch.full((NUM_ENTITIES, 2), 1e4),
        torch.ones(3, 2),
        make_edges(TRIPLES, 3, inverse=False, two_hop_limit=0, seed=0),
    )
    assert torch.isfinite(sums).all()


def test_the_encoder_is_two_layers_and_a_residual_map() -> None:
    torch.manual_seed(1)
    start = torch.randn(NUM_ENTITIES, 4), torch.randn(NUM_RELATIONS, 4)
    encoder = AttentionEncoder(
        *start,
        make_edges(TRIPLES, NUM_RELATIONS, inverse=True, two_hop_limit=0, seed=0),
        dim=3,
        heads=2,
        output_heads=2,
        slope=SLOPE,
        dropout=0.3,
    ).double()
    encoder.eval()
    entities, relations = (vectors.detach().numpy() for vectors in encoder())
    vectors = start[0].double().numpy()
    vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    first = elu(by_loops(encoder.hidden, vectors, start[1].double().numpy(), inverse=True))
    mapped = start[1].double().numpy() @ encoder.relation_map.detach().numpy()
    second = by_loops(encoder.output, first.reshape(NUM_ENTITIES, 6), mapped, inverse=True)
    summed = vectors @ encoder.entity_map.detach().numpy() + elu(second.mean(axis=1))
    assert entities == pytest.approx(
        summed / np.linalg.norm(summed, axis=1, keepdims=True), abs=1e-6
    )
    assert relations == pytest.approx(mapped, abs=1e-6)


def test_the_encoder_forgets_after_a_step_and_between_modes() -> None:
    encoder = AttentionEncoder(
        torch.randn(NUM_ENTITIES, 4),
        torch.randn(NUM_RELATIONS, 4),
        make_edges(TRIPLES, NUM_RELATIONS, inverse=True, two_hop_limit=0, seed=0),
        dim=3,
        heads=1,
        output_heads=1,
        slope=SLOPE,
        dropout=0.5,
    )
    dropped = encoder()
    assert encoder() is dropped
    encoder.post_parameter_update()
    assert not torch.equal(encoder()[0], dropped[0])
    encoder.eval()
    whole = encoder()
    encoder.eval()
    assert torch.equal(encoder()[0], whole[0])


graphs = st.lists(
    st.tuples(st.integers(0, 5), st.integers(0, 2), st.integers(0, 5)), min_size=1, max_size=15
).map(lambda rows: np.unique(np.array(rows), axis=0))


@given(triples=graphs)
def test_two_hops_are_all_paths_of_two_triples(triples: NDArray[np.int64]) -> None:
    edges = make_edges(triples, 3, inverse=False, two_hop_limit=1000, seed=0)
    hops = sorted(
        (receiver, sender, tuple(edges.coefficients[kind].tolist()))
        for receiver, sender, kind in zip(
            edges.receivers.tolist(), edges.senders.tolist(), edges.types.tolist(), strict=True
        )
    )
    unit = np.eye(3)
    wanted = [(h, t, tuple(unit[r].tolist())) for h, r, t in triples.tolist()]
    paths = {
        (h, t2, (r, r2))
        for h, r, t in triples.tolist()
        for h2, r2, t2 in triples.tolist()
        if t == h2 and h != t2
    }
    wanted += [(h, t, tuple((unit[r] + unit[r2]).tolist())) for h, t, (r, r2) in paths]
    assert hops == sorted(wanted)


def test_two_hops_of_a_receiver_are_limited_and_the_draw_is_seeded() -> None:
    generator = np.random.default_rng(0)
    triples = np.unique(generator.integers(0, [10, 2, 10], size=(80, 3)), axis=0)
    one, same, other = (
        make_edges(triples, 2, inverse=False, two_hop_limit=3, seed=seed) for seed in (0, 0, 1)
    )
    counts = torch.bincount(one.receivers[len(triples) :])
    assert counts.max() == 3
    assert torch.equal(one.senders, same.senders)
    assert not torch.equal(one.senders, other.senders)


def test_a_negative_limit_is_refused() -> None:
    with pytest.raises(ValueError, match="two_hop_limit must be from 0, got -1"):
        make_edges(TRIPLES, 3, inverse=False, two_hop_limit=-1, seed=0)
