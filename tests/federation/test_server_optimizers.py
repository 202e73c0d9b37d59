"""Golden numbers, the papers' equations in numpy, and Flower's own strategies to the bit."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import ArrayRecord
from flwr.serverapp import strategy as flower

from helpers.one_process import federate
from helpers.quadratic_clients import QuadraticClients, adapter_at, same_bytes
from helpers.reply_lists import cohort_grid, doubles, moved, replies_of, some_adapter, step
from pkgllm.federation.algorithms.resumable import WHOLE_COHORT
from pkgllm.federation.algorithms.strategies import StrategyName, make_strategy
from pkgllm.federation.flower import records
from pkgllm.lm.adapter import AdapterState

ADAPTIVE = {"server_learning_rate": 0.02, "tau": 0.01}
MOMENTS = {**ADAPTIVE, "beta_1": 0.8, "beta_2": 0.95}
PARAMETERS: Mapping[StrategyName, Mapping[str, float]] = {
    "fedavgm": {"server_learning_rate": 0.7, "server_momentum": 0.6},
    "fedadagrad": ADAPTIVE,
    "fedyogi": MOMENTS,
    "fedadam": MOMENTS,
}


@pytest.mark.parametrize(
    ("name", "parameters", "expected"),
    [
        # The targets are 0 and 16 and a step goes half way, so from x the mean step is (8 - x) / 2:
        # 4 in the first round. Then v = -4 and x = 0 + 4 / 2 = 2; the next mean step is 3,
        # v = -4 / 2 - 3 = -5 and x = 2 + 5 / 2.
        ("fedavgm", {"server_learning_rate": 0.5, "server_momentum": 0.5}, (2, 4.5)),
        # Without momentum: 0 + 4 / 2 = 2, then 2 + 3 / 2.
        ("fedavgm", {"server_learning_rate": 0.5, "server_momentum": 0.0}, (2, 3.5)),
        # v = 16, x = 4 / (4 + 1) = .8; step 3.6, v = 28.96, x = .8 + 3.6 / (5.38145 + 1).
        ("fedadagrad", {"server_learning_rate": 1.0, "tau": 1.0}, (0.8, 1.364135)),
        # m = 2, v = 0 + 16 / 4 = 4, x = 2 / (2 + 1); step 11/3, m = 1 + 11/6,
        # v = 4 + 121/36 = 7.361111, x = 2/3 + 2.833333 / (2.713137 + 1).
        (
            "fedyogi",
            {"server_learning_rate": 1.0, "beta_1": 0.5, "beta_2": 0.75, "tau": 1.0},
            (2 / 3, 1.429723),
        ),
        # m = 2, v = 4, rate sqrt(1 - .75^2) / (1 - .5^2) = .881917, x = .881917 * 2 / 3 = .587945;
        # step 3.706028, m = 1 + 1.853014, v = 3 + 3.433660 = 6.433660,
        # rate sqrt(1 - .75^3) / (1 - .5^3) = .868966, x = .587945 + .868966 * 2.853014 / 3.536466.
        (
            "fedadam",
            {"server_learning_rate": 1.0, "beta_1": 0.5, "beta_2": 0.75, "tau": 1.0},
            (0.587945, 1.288976),
        ),
    ],
)
def test_two_rounds_by_hand(
    name: StrategyName, parameters: Mapping[str, float], expected: tuple[float, float]
) -> None:
    for num_rounds, value in enumerate(expected, start=1):
        found = federate(
            trainer=QuadraticClients({"a": 0.0, "b": 16.0}),
            clients=["a", "b"],
            initial=adapter_at(0.0),
            num_rounds=num_rounds,
            cohort_size=2,
            seed=0,
            learning_rate=lambda _: 0.5,
            strategy=make_strategy(name, parameters),
        )
        torch.testing.assert_close(found, adapter_at(float(value)), rtol=1e-5, atol=1e-6)


def fedavgm(lr: float, momentum: float) -> Callable[..., np.ndarray]:
    """Hsu et al. 2019: v <- momentum v + gradient, x <- x - lr v, the gradient being -delta."""

    def move(x: np.ndarray, delta: np.ndarray, memory: dict[str, Any], t: int) -> np.ndarray:
        memory["v"] = momentum * memory.get("v", 0.0) - delta
        return x - lr * np.asarray(memory["v"])

    return move


def adaptive(
    lr: float, tau: float, beta_1: float, v_of: Callable[..., Any], rate: Callable[[int], float]
) -> Callable[..., np.ndarray]:
    """Reddi et al. 2021, algorithm 2, with v_0 = 0 in place of tau^2."""

    def move(x: np.ndarray, delta: np.ndarray, memory: dict[str, Any], t: int) -> np.ndarray:
        memory["m"] = beta_1 * memory.get("m", 0.0) + (1 - beta_1) * delta
        memory["v"] = v_of(memory.get("v", np.zeros_like(delta)), delta**2)
        return np.asarray(x + lr * rate(t) * memory["m"] / (np.sqrt(memory["v"]) + tau))

    return move


PAPERS: Mapping[StrategyName, Callable[..., np.ndarray]] = {
    "fedavgm": fedavgm(0.7, 0.6),
    "fedadagrad": adaptive(0.02, 0.01, 0.0, lambda v, square: v + square, lambda t: 1.0),
    "fedyogi": adaptive(
        0.02, 0.01, 0.8, lambda v, s: v - (1 - 0.95) * s * np.sign(v - s), lambda t: 1.0
    ),
    # The paper has no bias correction; Flower has Kingma and Ba's, one round late.
    "fedadam": adaptive(
        0.02,
        0.01,
        0.8,
        lambda v, s: 0.95 * v + (1 - 0.95) * s,
        lambda t: float(np.sqrt(1 - 0.95 ** (t + 1)) / (1 - 0.8 ** (t + 1))),
    ),
}


@pytest.mark.parametrize("name", PAPERS)
def test_fifty_random_rounds_follow_the_papers_equation(name: StrategyName) -> None:
    strategy, adapter = make_strategy(name, PARAMETERS[name]), some_adapter(0)
    expected, memory = doubles(adapter), {key: dict[str, Any]() for key in adapter}
    generator = np.random.default_rng(0)
    for round_num in range(1, 51):
        updates = [moved(adapter, 100 * round_num + n, std=0.02) for n in range(3)]
        weights = [float(weight) for weight in generator.integers(1, 9, 3)]
        start = doubles(adapter)
        adapter = step(strategy, round_num, adapter, updates, weights)
        for key in expected:
            mean = np.average([doubles(u)[key] for u in updates], axis=0, weights=weights)
            delta = mean - start[key]
            expected[key] = PAPERS[name](expected[key], delta, memory[key], round_num)
            np.testing.assert_allclose(adapter[key].numpy(), expected[key], rtol=1e-4, atol=2e-5)
    assert (
        max(np.abs(expected[key] - doubles(some_adapter(0))[key]).max() for key in expected) > 0.05
    )


def flowers_own(name: StrategyName) -> flower.FedAvg:
    parameters: dict[str, Any] = dict(PARAMETERS[name])
    if name == "fedavgm":
        return flower.FedAvgM(**WHOLE_COHORT, **parameters)
    parameters["eta"] = parameters.pop("server_learning_rate")
    made: dict[str, Any] = {
        "fedadagrad": flower.FedAdagrad,
        "fedyogi": flower.FedYogi,
        "fedadam": flower.FedAdam,
    }
    found = made[name](**WHOLE_COHORT, **parameters)
    assert isinstance(found, flower.FedAvg)
    return found


@pytest.mark.parametrize("name", PARAMETERS)
def test_equals_flowers_own_to_the_bit_but_for_its_double_precision(name: StrategyName) -> None:
    ours, theirs, adapter = (
        make_strategy(name, PARAMETERS[name]),
        flowers_own(name),
        some_adapter(0),
    )
    widened = False
    for round_num in range(1, 9):
        updates = [moved(adapter, 10 * round_num + n, std=0.02) for n in range(3)]
        config = records.instruction_config(round_num, 0.1)
        grid = cohort_grid(["p0", "p1", "p2"])
        theirs.configure_train(round_num, records.to_record(adapter), config, grid)
        arrays, _ = theirs.aggregate_train(round_num, replies_of(updates, [1.0, 2.0, 3.0]))
        assert isinstance(arrays, ArrayRecord)
        widened = widened or any(array.dtype == "float64" for array in arrays.values())
        adapter = step(ours, round_num, adapter, updates, [1.0, 2.0, 3.0])
        assert same_bytes(adapter, records.to_adapter(arrays))
    # So that it is noticed when Flower mends it.
    assert widened == (name == "fedadam")


@pytest.mark.parametrize("name", ["fedadagrad", "fedyogi", "fedadam"])
def test_the_defaults_take_small_steps_as_averaging_does_and_flowers_a_hundredfold(
    name: StrategyName,
) -> None:
    from pkgllm.config import strategy_sections

    section = {
        "fedadagrad": strategy_sections.FedAdagrad(name="fedadagrad"),
        "fedyogi": strategy_sections.FedYogi(name="fedyogi"),
        "fedadam": strategy_sections.FedAdam(name="fedadam"),
    }[name]
    ours = make_strategy(name, section.model_dump(exclude={"name"}))
    small: AdapterState = adapter_at(1e-5)
    found = step(ours, 1, adapter_at(0.0), [small])["layer.lora_A"].max().item()
    # beta_1 of .9 takes a tenth of the first step, which FedAdam's correction makes .74 of it.
    share = {"fedadagrad": 1.0, "fedyogi": 0.1, "fedadam": 0.0742}[name]
    assert found == pytest.approx(share * 1e-5, rel=0.03)
    theirs = {
        "fedadagrad": flower.FedAdagrad,
        "fedyogi": flower.FedYogi,
        "fedadam": flower.FedAdam,
    }[name](**WHOLE_COHORT)
    grid, config = cohort_grid(["p0"]), records.instruction_config(1, 0.1)
    theirs.configure_train(1, records.to_record(adapter_at(0.0)), config, grid)
    arrays, _ = theirs.aggregate_train(1, replies_of([small], [1.0]))
    assert isinstance(arrays, ArrayRecord)
    grown = arrays["layer.lora_A"].numpy().max() / found
    assert grown == pytest.approx(10 if name == "fedyogi" else 100, rel=0.01)


def test_momentum_at_rate_one_and_without_memory_is_averaging_to_the_bit() -> None:
    updates = [moved(some_adapter(0), n, std=0.1) for n in range(3)]
    plain = make_strategy("fedavgm", {"server_learning_rate": 1.0, "server_momentum": 0.0})
    found = step(plain, 1, some_adapter(0), updates)
    assert same_bytes(found, step(make_strategy("fedavg"), 1, some_adapter(0), updates))
