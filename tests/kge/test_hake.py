import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from pkgllm.kge.embeddings.hake import Hake
from pkgllm.kge.hake_interaction import HakeInteraction
from pkgllm.kge.integer_triples import IntegerTriples
from pkgllm.kge.pykeen_door import Model

DIM, MARGIN = 5, 6.0
Array = NDArray[np.float64]


def by_the_paper(
    head: tuple[Array, Array],
    relation: tuple[Array, Array, Array],
    tail: tuple[Array, Array],
    *,
    phase_weight: float,
    modulus_weight: float,
) -> float:
    """The score of one triple of angles and moduli, number by number."""
    turned = scaled = 0.0
    for i in range(DIM):
        angle = head[0][i] + relation[0][i] - tail[0][i]
        turned += abs(np.sin(angle / 2))
        scale = abs(relation[1][i])
        bias = min(max(relation[2][i], -scale), 1.0)
        scaled += (head[1][i] * (scale + bias) - tail[1][i] * (1 - bias)) ** 2
    return MARGIN - phase_weight * turned - modulus_weight * float(np.sqrt(scaled))


@pytest.fixture
def model() -> Model:
    triples = IntegerTriples(
        np.array([[0, 0, 1], [1, 1, 2], [3, 2, 0]]), num_entities=4, num_relations=3
    )
    choice = Hake(dim=DIM, margin=MARGIN, phase_weight=0.7, modulus_weight=1.3)
    model = choice.untrained(triples, 0).double()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            # Biases then lie below -|modulus|, above 1 and between.
            parameter.copy_(2 * torch.randn(parameter.shape, generator=generator).double())
    return model


def expected(model: Model, head: int, relation: int, tail: int) -> float:
    state = {name: value.numpy() for name, value in model.state_dict().items()}
    to_angle = np.pi / ((MARGIN + 2) / DIM)
    phases, moduli = (
        state[f"entity_representations.{part}._embeddings.weight"] for part in range(2)
    )
    turn, scale, bias = (
        state[f"relation_representations.{part}._embeddings.weight"] for part in range(3)
    )
    return by_the_paper(
        (phases[head] * to_angle, moduli[head]),
        (turn[relation] * to_angle, scale[relation], bias[relation]),
        (phases[tail] * to_angle, moduli[tail]),
        phase_weight=float(state["interaction.phase_weight"]),
        modulus_weight=float(state["interaction.modulus_weight"]),
    )


def test_every_way_of_scoring_is_the_formula_of_the_paper(model: Model) -> None:
    every = [(h, r, t) for h in range(4) for r in range(3) for t in range(4)]
    wanted = np.array([expected(model, *triple) for triple in every])
    scores = model.score_hrt(torch.tensor(every))
    assert scores.shape == (48, 1)
    assert scores.detach().numpy()[:, 0] == pytest.approx(wanted, abs=1e-9)

    pairs = torch.tensor([(h, r) for h in range(4) for r in range(3)])
    of_tails = model.score_t(pairs)
    assert of_tails.shape == (12, 4)
    assert of_tails.detach().numpy() == pytest.approx(wanted.reshape(12, 4), abs=1e-9)

    rt = torch.tensor([(r, t) for r in range(3) for t in range(4)])
    of_heads = model.score_h(rt).detach().numpy()
    assert of_heads == pytest.approx(wanted.reshape(4, 12).T, abs=1e-9)


def test_biases_are_clamped_on_both_sides_in_the_test_above(model: Model) -> None:
    state = model.state_dict()
    scale, bias = (state[f"relation_representations.{part}._embeddings.weight"] for part in (1, 2))
    assert (bias > 1).any()
    assert (bias < -scale.abs()).any()
    assert ((bias < 1) & (bias > -scale.abs())).any()


def test_first_vectors_are_those_of_the_authors() -> None:
    triples = IntegerTriples(np.array([[0, 0, 1]]), num_entities=300, num_relations=2)
    state = Hake(dim=20, margin=8.0, phase_weight=0.5).untrained(triples, 0).state_dict()
    for part in range(2):
        weight = state[f"entity_representations.{part}._embeddings.weight"]
        assert weight.abs().max() <= 0.5
        assert weight.std() == pytest.approx(0.5 / np.sqrt(3), rel=0.05)
    _, scale, bias = (
        state[f"relation_representations.{part}._embeddings.weight"] for part in range(3)
    )
    assert (scale == 1).all()
    assert (bias == 0).all()
    assert float(state["interaction.phase_weight"]) == pytest.approx(0.25)
    assert float(state["interaction.modulus_weight"]) == pytest.approx(3.5)


def test_the_mean_of_two_phases_lies_between_them_across_the_seam() -> None:
    interaction = HakeInteraction(dim=1, margin=2.0, phase_weight=1.0, modulus_weight=1.0)
    near_the_seam = interaction.range * torch.tensor([[0.9], [-0.9]])  # 162 and -162 degrees
    phase, modulus = interaction.mean_entity([near_the_seam, torch.tensor([[1.0], [4.0]])])
    assert phase.abs().item() == pytest.approx(interaction.range)
    assert modulus.item() == 2.5


def test_the_gradient_is_finite_where_nothing_is_missed() -> None:
    interaction = HakeInteraction(dim=2, margin=2.0, phase_weight=1.0, modulus_weight=1.0)
    zero = torch.zeros(1, 2, requires_grad=True)
    one = torch.ones(1, 2)
    interaction((zero, one), (zero, one, zero), (zero, one)).sum().backward()
    assert zero.grad is not None
    assert torch.isfinite(zero.grad).all()
