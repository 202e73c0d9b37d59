"""FedAvg, FedProx and the server optimisers by hand, and by the papers' equations in numpy."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.algorithm_steps import Server, doubles, moved, some_adapter
from helpers.one_process import quadratic_rounds
from helpers.quadratic_clients import QuadraticClients, adapter_at, entries, same_bytes
from pkgllm.federation.algorithm import Algorithm
from pkgllm.federation.algorithms.fedadagrad import FedAdagrad
from pkgllm.federation.algorithms.fedadam import FedAdam
from pkgllm.federation.algorithms.fedavg import FedAvg
from pkgllm.federation.algorithms.fedavgm import FedAvgM
from pkgllm.federation.algorithms.fedprox import FedProx
from pkgllm.federation.algorithms.fedyogi import FedYogi

MOMENTS: dict[str, Any] = {"server_learning_rate": 1.0, "beta_1": 0.5, "beta_2": 0.75, "tau": 1.0}


@pytest.mark.parametrize(
    ("algorithm", "expected"),
    [
        # The targets are 0 and 16 and a step goes half way, so from x the mean step is (8 - x) / 2:
        # 4 in the first round. Then v = -4 and x = 0 + 4 / 2 = 2; the next mean step is 3,
        # v = -4 / 2 - 3 = -5 and x = 2 + 5 / 2.
        (FedAvgM(server_learning_rate=0.5, server_momentum=0.5), (2, 4.5)),
        # Without momentum: 0 + 4 / 2 = 2, then 2 + 3 / 2.
        (FedAvgM(server_learning_rate=0.5, server_momentum=0.0), (2, 3.5)),
        # v = 16, x = 4 / (4 + 1) = .8; step 3.6, v = 28.96, x = .8 + 3.6 / (5.38145 + 1).
        (FedAdagrad(server_learning_rate=1.0, tau=1.0), (0.8, 1.364135)),
        # m = 2, v = 0 + 16 / 4 = 4, x = 2 / (2 + 1); step 11/3, m = 1 + 11/6,
        # v = 4 + 121/36 = 7.361111, x = 2/3 + 2.833333 / (2.713137 + 1).
        (FedYogi(**MOMENTS), (2 / 3, 1.429723)),
        # m = 2, v = 4, rate sqrt(1 - .75^2) / (1 - .5^2) = .881917, x = .881917 * 2 / 3 = .587945;
        # step 3.706028, m = 1 + 1.853014, v = 3 + 3.433660 = 6.433660,
        # rate sqrt(1 - .75^3) / (1 - .5^3) = .868966, x = .587945 + .868966 * 2.853014 / 3.536466.
        (FedAdam(**MOMENTS), (0.587945, 1.288976)),
    ],
)
def test_two_rounds_by_hand(algorithm: Algorithm, expected: tuple[float, float]) -> None:
    for num_rounds, value in enumerate(expected, start=1):
        after = quadratic_rounds(
            QuadraticClients({"a": 0.0, "b": 16.0}), num_rounds=num_rounds, algorithm=algorithm
        )
        torch.testing.assert_close(after, adapter_at(float(value)), rtol=1e-5, atol=1e-6)


def momentum(lr: float, mu: float) -> Callable[..., np.ndarray]:
    """Hsu et al. 2019: v <- mu v + gradient, x <- x - lr v, the gradient being -delta."""

    def move(x: np.ndarray, delta: np.ndarray, memory: dict[str, Any], t: int) -> np.ndarray:
        memory["v"] = mu * memory.get("v", 0.0) - delta
        return x - lr * np.asarray(memory["v"])

    return move


def adaptive(
    beta_1: float, v_of: Callable[..., Any], rate: Callable[[int], float] = lambda t: 1.0
) -> Callable[..., np.ndarray]:
    """Reddi et al. 2021, algorithm 2, with v_0 = 0 in place of tau^2."""

    def move(x: np.ndarray, delta: np.ndarray, memory: dict[str, Any], t: int) -> np.ndarray:
        memory["m"] = beta_1 * memory.get("m", 0.0) + (1 - beta_1) * delta
        memory["v"] = v_of(memory.get("v", np.zeros_like(delta)), delta**2)
        return np.asarray(x + 0.02 * rate(t) * memory["m"] / (np.sqrt(memory["v"]) + 0.01))

    return move


SMALL: dict[str, Any] = {"server_learning_rate": 0.02, "tau": 0.01}


@pytest.mark.parametrize(
    ("algorithm", "move"),
    [
        (FedAvgM(server_learning_rate=0.7, server_momentum=0.6), momentum(0.7, 0.6)),
        (FedAdagrad(**SMALL), adaptive(0.0, lambda v, square: v + square)),
        (
            FedYogi(**SMALL, beta_1=0.8, beta_2=0.95),
            adaptive(0.8, lambda v, s: v - (1 - 0.95) * s * np.sign(v - s)),
        ),
        # The paper has no bias correction; Flower has Kingma and Ba's, one round late.
        (
            FedAdam(**SMALL, beta_1=0.8, beta_2=0.95),
            adaptive(
                0.8,
                lambda v, s: 0.95 * v + (1 - 0.95) * s,
                lambda t: float(np.sqrt(1 - 0.95 ** (t + 1)) / (1 - 0.8 ** (t + 1))),
            ),
        ),
    ],
    ids=["fedavgm", "fedadagrad", "fedyogi", "fedadam"],
)
def test_fifty_random_rounds_follow_the_papers_equation(
    algorithm: Algorithm, move: Callable[..., np.ndarray]
) -> None:
    server = Server(algorithm, some_adapter(0))
    expected, memory = doubles(server.adapter), {key: dict[str, Any]() for key in server.adapter}
    generator = np.random.default_rng(0)
    for round_num in range(1, 51):
        updates = [moved(server.adapter, 100 * round_num + n, std=0.02) for n in range(3)]
        weights = [float(weight) for weight in generator.integers(1, 9, 3)]
        start = doubles(server.adapter)
        server.take(updates, weights)
        for key in expected:
            mean = np.average([doubles(u)[key] for u in updates], axis=0, weights=weights)
            expected[key] = move(expected[key], mean - start[key], memory[key], round_num)
            np.testing.assert_allclose(
                server.adapter[key].numpy(), expected[key], rtol=1e-4, atol=2e-5
            )
    assert (
        max(np.abs(expected[key] - doubles(some_adapter(0))[key]).max() for key in expected) > 0.05
    )


def test_momentum_at_rate_one_and_without_memory_is_averaging() -> None:
    updates = [moved(some_adapter(0), n, std=0.1) for n in range(3)]
    plain = FedAvgM(server_learning_rate=1.0, server_momentum=0.0)
    after = Server(plain, some_adapter(0)).take(updates)
    torch.testing.assert_close(after, Server(FedAvg(), some_adapter(0)).take(updates))


def test_proximal_terms_by_hand() -> None:
    # Two half steps towards t from x: y = x + d / 2, then + (d - d / 2 - 1 * d / 2) / 2 = 0, for
    # d = t - x. The means of the targets 0 and 16: 0 -> 4 -> 6; without the term 0 -> 6 -> 7.5.
    for proximal_mu, values in {1.0: (4.0, 6.0), 0.0: (6.0, 7.5)}.items():
        for num_rounds, value in enumerate(values, start=1):
            after = quadratic_rounds(
                QuadraticClients({"a": 0.0, "b": 16.0}, local_steps=2),
                num_rounds=num_rounds,
                algorithm=FedProx(proximal_mu=proximal_mu),
            )
            assert entries(after) == {value}


def test_one_client_gets_its_own_adapter_to_the_bit() -> None:
    clients = QuadraticClients({"a": 0.7})
    after = quadratic_rounds(clients, initial=adapter_at(0.1), learning_rate=lambda _: 0.3)
    own: Any = clients.train("a", adapter_at(0.1), 0.3)
    assert same_bytes(after, own.adapter)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.floats(-9, 9, width=32), st.integers(1, 50)), min_size=1, max_size=5))
def test_the_weighted_mean_is_that_of_double_precision(parts: list[tuple[float, int]]) -> None:
    names = [f"p{index}" for index in range(len(parts))]
    clients = QuadraticClients(
        dict(zip(names, (target for target, _ in parts), strict=True)),
        num_groups=dict(zip(names, (groups for _, groups in parts), strict=True)),
    )
    after = quadratic_rounds(clients, weighting="examples", report_private_metrics=True)
    mean = np.average(
        [0.5 * target for target, _ in parts], weights=[groups for _, groups in parts]
    )
    torch.testing.assert_close(after, adapter_at(float(mean)), rtol=1e-5, atol=1e-5)
