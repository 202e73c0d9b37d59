"""FedDyn by hand, by the paper's equations, and at the optimum that averaging misses."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from helpers.one_process import quadratic_rounds
from helpers.quadratic_clients import QuadraticClients, adapter_at, entries
from pkgllm.federation.algorithms.fedavg import FedAvg
from pkgllm.federation.algorithms.feddyn import FedDyn
from pkgllm.federation.client_state import ClientStates
from pkgllm.federation.rounds import RoundRecord

KEY = "layer.lora_A"
TARGETS = {"a": -3.0, "b": 1.0, "c": 2.0, "d": 7.0}
CURVATURES = {"a": 2.0, "b": 0.5, "c": 1.0, "d": 0.25}
OPTIMUM = sum(CURVATURES[c] * TARGETS[c] for c in TARGETS) / sum(CURVATURES.values())


def run(clients: QuadraticClients, folder: Path, **changes: Any) -> list[RoundRecord]:
    records: list[RoundRecord] = []
    settings = {"states": ClientStates(folder), "on_round": records.append}
    quadratic_rounds(clients, **{**settings, **changes})
    return records


def test_two_rounds_by_hand(tmp_path: Path) -> None:
    # One half step from 0 towards 0 and 16: 0 and 8, mean 4. With alpha 1 the clients' gradients
    # become 0 and -8, h = -4 and x = 4 + 4 = 8. From 8, a's gradient is 8 - 0, so it goes to 4; b's
    # is -8 + 8 = 0, so it stays at 8; mean 6, h = -4 + 2 = -2 and x = 6 + 2 = 8.
    clients = QuadraticClients({"a": 0.0, "b": 16.0})
    first, second = run(clients, tmp_path, algorithm=FedDyn(alpha=1.0), num_rounds=2)
    assert entries(first.adapter) == {8.0}
    assert (first.state[f"drift/{KEY}"] == -4).all()
    assert entries(second.adapter) == {8.0}
    assert (second.state[f"drift/{KEY}"] == -2).all()
    states = ClientStates(tmp_path)
    assert entries(states.read("a", 2)) == {4.0}
    assert entries(states.read("b", 1)) == entries(states.read("b", 2)) == {-8.0}


def test_a_part_of_the_cohort_moves_the_drift_by_its_share(tmp_path: Path) -> None:
    # One of four goes half way to 16: y = 8, h = -8 / 4 and x = 8 + 2.
    clients = QuadraticClients(dict.fromkeys("abcd", 16.0))
    (record,) = run(clients, tmp_path, algorithm=FedDyn(alpha=1.0), cohort_size=1)
    assert entries(record.adapter) == {10.0}
    assert (record.state[f"drift/{KEY}"] == -2).all()


def test_rounds_follow_the_papers_equations(tmp_path: Path) -> None:
    alpha, rate, steps = 0.7, 0.1, 5
    clients = QuadraticClients(TARGETS, curvatures=CURVATURES, local_steps=steps)
    records = run(
        clients,
        tmp_path,
        algorithm=FedDyn(alpha=alpha),
        num_rounds=12,
        cohort_size=2,
        learning_rate=lambda _: rate,
    )
    x, h = 0.0, 0.0
    gradients = dict.fromkeys(TARGETS, 0.0)
    for record in records:
        trained = {}
        for client in record.cohort:
            y = x
            for _ in range(steps):
                slope = CURVATURES[client] * (y - TARGETS[client])
                y -= rate * (slope - gradients[client] + alpha * (y - x))
            gradients[client] -= alpha * (y - x)
            trained[client] = y
        h -= alpha / len(TARGETS) * sum(y - x for y in trained.values())
        x = sum(trained.values()) / len(trained) - h / alpha
        torch.testing.assert_close(record.adapter, adapter_at(x), rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("cohort_size", [4, 2])
def test_it_reaches_the_optimum_where_averaging_stays_off(cohort_size: int, tmp_path: Path) -> None:
    clients = QuadraticClients(TARGETS, curvatures=CURVATURES, local_steps=10)
    how: dict[str, Any] = {
        "num_rounds": 80,
        "cohort_size": cohort_size,
        "learning_rate": lambda _: 0.1,
    }
    records = run(clients, tmp_path, algorithm=FedDyn(alpha=1.0), **how)
    torch.testing.assert_close(records[-1].adapter, adapter_at(OPTIMUM), rtol=0, atol=1e-3)
    # There each client's state is its own gradient, and what has drifted is nothing.
    rounds = records[-1].state["accepted_rounds"].tolist()
    for client, last in zip(sorted(TARGETS), rounds, strict=True):
        own = ClientStates(tmp_path).read(client, last)[KEY].numpy()
        expected = CURVATURES[client] * (OPTIMUM - TARGETS[client])
        np.testing.assert_allclose(own, expected, atol=1e-2)
    torch.testing.assert_close(
        records[-1].state[f"drift/{KEY}"], torch.zeros(2, 3), rtol=0, atol=1e-2
    )
    averaging = run(clients, tmp_path / "averaging", algorithm=FedAvg(), **how)
    last_values = [record.adapter[KEY][0, 0].item() for record in averaging[-20:]]
    assert max(abs(value - OPTIMUM) for value in last_values) > 0.3
