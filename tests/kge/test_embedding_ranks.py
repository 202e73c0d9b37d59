import numpy as np
import pytest
import torch

from helpers.embedded_letters import CHOICES
from pkgllm.kge.integer_triples import IntegerTriples
from pkgllm.kge.ranks import filtered_metrics


@pytest.mark.parametrize("choice", CHOICES[:2], ids=lambda choice: choice.name)
def test_metrics_are_those_of_counting(choice: object) -> None:
    generator = np.random.default_rng(0)
    train, test = (generator.integers(0, [9, 2, 9], size=(size, 3)) for size in (40, 7))
    triples = IntegerTriples(train, num_entities=9, num_relations=2)
    model = choice.untrained(triples, 0).eval()  # type: ignore[attr-defined]
    known = {tuple(triple) for triple in np.concatenate([train, test]).tolist()}

    def score(triple: tuple[int, ...]) -> float:
        return float(model.score_hrt(torch.tensor([triple])).detach())

    ranks = []
    for triple in test.tolist():
        for side in (0, 2):
            others = [(*triple[:side], entity, *triple[side + 1 :]) for entity in range(9)]
            rivals = [score(other) for other in others if other not in known]
            own = score(tuple(triple))
            better = sum(rival > own for rival in rivals)
            level = sum(rival == own for rival in rivals)
            ranks.append(1 + better + level / 2)
    metrics = filtered_metrics(model, test, [train, test])
    assert metrics["mrr"] == pytest.approx(np.mean(1 / np.array(ranks)))
    for k in (1, 3, 10):
        assert metrics[f"hits_at_{k}"] == pytest.approx(np.mean(np.array(ranks) <= k))
