"""What holds for all strategies, and those that have no file of their own."""

import tracemalloc
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.one_process import federate
from helpers.quadratic_clients import QuadraticClients, adapter_at, entries, same_bytes
from helpers.reply_lists import cohort_grid, doubles, moved, replies_of, some_adapter, step
from pkgllm.federation.algorithms.client_controls import ClientControls
from pkgllm.federation.algorithms.krum import closest_to_most, squared_distances
from pkgllm.federation.algorithms.resumable import ResumableStrategy
from pkgllm.federation.algorithms.strategies import Aggregation, StrategyName, make_strategy
from pkgllm.federation.control_store import ControlStore
from pkgllm.federation.flower import records
from pkgllm.federation.flower.client_app import CohortApp
from pkgllm.federation.flower.grid import LocalGrid
from pkgllm.federation.rounds import Rounds, run_rounds
from pkgllm.lm.adapter import AdapterState

ADAPTIVE = {"server_learning_rate": 0.05, "tau": 0.01}
MOMENTS = {**ADAPTIVE, "beta_1": 0.8, "beta_2": 0.95}
ALL: Mapping[tuple[StrategyName, Aggregation], Mapping[str, float]] = {
    ("fedavg", "factor_mean"): {},
    ("fedavg", "stack_svd"): {},
    ("fedprox", "factor_mean"): {"proximal_mu": 0.3},
    ("fedprox", "stack_svd"): {"proximal_mu": 0.3},
    ("scaffold", "factor_mean"): {"server_learning_rate": 0.9},
    ("fedavgm", "factor_mean"): {"server_learning_rate": 0.5, "server_momentum": 0.7},
    ("fedadagrad", "factor_mean"): ADAPTIVE,
    ("fedyogi", "factor_mean"): MOMENTS,
    ("fedadam", "factor_mean"): MOMENTS,
    ("fedmedian", "factor_mean"): {},
    ("fedtrimmedavg", "factor_mean"): {"trimmed_share": 0.25},
    ("krum", "factor_mean"): {"num_malicious": 1},
}
CLIENTS = {f"p{index}": 0.37 * index - 1.1 for index in range(7)}
LOCAL_STEPS = 3


def made(chosen: tuple[StrategyName, Aggregation]) -> ResumableStrategy:
    name, aggregation = chosen
    return make_strategy(
        name,
        ALL[chosen],
        aggregation=aggregation,
        clients=list(CLIENTS),
        local_steps=LOCAL_STEPS,
    )


def run(
    strategy: ResumableStrategy,
    folder: Path,
    *,
    rounds: tuple[int, int],
    initial: AdapterState,
    lost: Mapping[int, set[str]] | None = None,
) -> AdapterState:
    """Run some rounds of five clients in seven; some updates of some rounds cannot be used."""

    class Unreliable(QuadraticClients):
        def __call__(self, adapters: Mapping[str, AdapterState], **how: Any) -> Any:
            found = super().__call__(adapters, **how)
            for client in (lost or {}).get(how["round_num"], ()):
                if client in found:
                    found[client] = RuntimeError("lost")
            return found

    trainer = Unreliable(CLIENTS, local_steps=LOCAL_STEPS, curvatures={"p1": 2.0, "p4": 0.5})
    controls = ClientControls(
        ControlStore(folder / "controls", list(CLIENTS), initial), local_steps=LOCAL_STEPS
    )
    app = CohortApp(trainer, weighting="uniform", report_private_metrics=False, controls=controls)
    return run_rounds(
        LocalGrid(app, list(CLIENTS)),
        Rounds(
            strategy=strategy,
            initial=initial,
            num_rounds=rounds[1],
            first_round=rounds[0],
            cohort_size=5,
            seed=5,
            learning_rate=lambda round_num: 0.3 / round_num,
            timeout=60,
        ),
    )


@pytest.mark.parametrize("chosen", ALL, ids=lambda chosen: "-".join(chosen))
def test_a_fresh_object_goes_on_to_the_bit(
    chosen: tuple[StrategyName, Aggregation], tmp_path: Path
) -> None:
    for name in ("whole", "halves"):
        (tmp_path / name).mkdir()
    lost = {2: {"p2", "p5"}, 5: {"p1", "p3"}}
    start = some_adapter(1)
    whole = run(made(chosen), tmp_path / "whole", rounds=(1, 6), initial=start, lost=lost)
    first, second = made(chosen), made(chosen)
    half = run(first, tmp_path / "halves", rounds=(1, 3), initial=start, lost=lost)
    state = first.state_dict()
    assert all(value.dtype in (np.float32, np.int64) for value in state.values())
    kept = {name: value.copy() for name, value in state.items()}
    second.load_state_dict(state, records.to_record(half))
    assert same_bytes(
        run(second, tmp_path / "halves", rounds=(4, 6), initial=half, lost=lost), whole
    )
    # What was taken out belongs to the caller.
    assert all(np.array_equal(kept[name], state[name]) for name in kept)
    remembers = chosen[0] in ("scaffold", "fedavgm", "fedadagrad", "fedyogi", "fedadam")
    assert bool(state) == remembers
    if remembers:
        (tmp_path / "forgot").mkdir()
        forgot = made(chosen)
        half = run(made(chosen), tmp_path / "forgot", rounds=(1, 3), initial=start, lost=lost)
        (tmp_path / "forgot" / "controls").unlink()
        again = run(forgot, tmp_path / "forgot", rounds=(4, 6), initial=half, lost=lost)
        assert not same_bytes(again, whole)


@pytest.mark.parametrize("chosen", ALL, ids=lambda chosen: "-".join(chosen))
def test_a_single_reply_is_enough(chosen: tuple[StrategyName, Aggregation]) -> None:
    start, update = some_adapter(0), moved(some_adapter(0), 1, std=0.1)
    found = step(made(chosen), 1, start, [update])
    if chosen[0] in ("fedavg", "fedprox", "fedmedian", "fedtrimmedavg", "krum"):
        torch.testing.assert_close(product(found), product(update))


def product(adapter: AdapterState) -> torch.Tensor:
    return adapter["layer.lora_B"] @ adapter["layer.lora_A"]


@pytest.mark.parametrize("chosen", ALL, ids=lambda chosen: "-".join(chosen))
def test_a_state_of_something_else_is_refused(chosen: tuple[StrategyName, Aggregation]) -> None:
    arrays = records.to_record(some_adapter(0))
    with pytest.raises(ValueError, match="state"):
        made(chosen).load_state_dict({"momenta/layer.lora_A": np.zeros((2, 3))}, arrays)


def test_a_state_of_another_shape_is_refused() -> None:
    arrays = records.to_record(some_adapter(0))
    with pytest.raises(ValueError, match=r"got m/layer.lora_A of shape \(3, 2\)"):
        made(("fedadam", "factor_mean")).load_state_dict(
            {"m/layer.lora_A": np.zeros((3, 2))}, arrays
        )
    with pytest.raises(ValueError, match="m of all 2 keys of the adapter, got 1"):
        made(("fedadam", "factor_mean")).load_state_dict(
            {"m/layer.lora_A": np.zeros((2, 3))}, arrays
        )


def test_names_and_parameters_are_checked() -> None:
    with pytest.raises(
        ValueError, match="must be one of fedavg, fedprox for aggregation stack_svd"
    ):
        make_strategy("fedadam", MOMENTS, aggregation="stack_svd")
    with pytest.raises(TypeError, match="server_momentum"):
        make_strategy("fedavgm", {"server_learning_rate": 1.0})
    with pytest.raises(TypeError, match="beta_1"):
        make_strategy("fedadagrad", MOMENTS)


def test_proximal_terms_by_hand() -> None:
    # Two half steps towards t from x: y = x + d / 2, then + (d - d / 2 - 1 * d / 2) / 2 = 0, for
    # d = t - x. The means of the targets 0 and 16: 0 -> 4 -> 6; without the term 0 -> 6 -> 7.5.
    expected = {1.0: (4.0, 6.0), 0.0: (6.0, 7.5)}
    for proximal_mu, values in expected.items():
        for num_rounds, value in enumerate(values, start=1):
            found = federate(
                trainer=QuadraticClients({"a": 0.0, "b": 16.0}, local_steps=2),
                clients=["a", "b"],
                initial=adapter_at(0.0),
                num_rounds=num_rounds,
                cohort_size=2,
                seed=0,
                learning_rate=lambda _: 0.5,
                strategy=make_strategy("fedprox", {"proximal_mu": proximal_mu}),
            )
            assert entries(found) == {value}


def test_without_a_proximal_term_it_is_averaging_to_the_bit(tmp_path: Path) -> None:
    found = [
        run(strategy, tmp_path, rounds=(1, 4), initial=some_adapter(1))
        for strategy in (make_strategy("fedprox", {"proximal_mu": 0}), make_strategy("fedavg"))
    ]
    assert same_bytes(*found)


adapters = st.lists(
    st.lists(st.floats(-9, 9, width=32), min_size=14, max_size=14), min_size=1, max_size=9
)


def from_values(rows: list[list[float]]) -> Iterator[AdapterState]:
    for row in rows:
        values = torch.tensor(row)
        yield {"layer.lora_A": values[:6].view(2, 3), "layer.lora_B": values[6:].view(4, 2)}


@settings(max_examples=40, deadline=None)
@given(adapters)
def test_the_median_is_numpys(rows: list[list[float]]) -> None:
    found = step(make_strategy("fedmedian"), 1, some_adapter(0), list(from_values(rows)))
    (expected,) = from_values([list(np.median(np.array(rows, np.float32), axis=0))])
    torch.testing.assert_close(found, expected)


@settings(max_examples=40, deadline=None)
@given(adapters, st.floats(0, 0.49))
def test_the_trimmed_mean_is_that_of_the_middle(rows: list[list[float]], share: float) -> None:
    strategy = make_strategy("fedtrimmedavg", {"trimmed_share": share})
    found = step(strategy, 1, some_adapter(0), list(from_values(rows)))
    cut = int(share * len(rows))
    middle = np.sort(np.array(rows, np.float32), axis=0)[cut : len(rows) - cut]
    (expected,) = from_values([list(middle.mean(axis=0, dtype=np.float32))])
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def flattened(adapter: AdapterState) -> np.ndarray:
    return np.concatenate([value.ravel() for value in doubles(adapter).values()])


def krum_by_the_paper(updates: list[np.ndarray], num_malicious: int) -> int:
    """Blanchard et al. 2017, section 4, one update after the other."""
    scores = []
    for index, own in enumerate(updates):
        distances = sorted(
            float(((own - other) ** 2).sum()) for j, other in enumerate(updates) if j != index
        )
        scores.append(sum(distances[: max(1, len(updates) - num_malicious - 2)]))
    return int(np.argmin(scores))


@pytest.mark.parametrize("std", [1.0, 1e-4])
def test_krum_selects_as_the_paper_does_however_small_the_steps(std: float) -> None:
    # Adapters of length 300 that differ by 0.004 or less: in single precision nothing is left.
    start = {key: 100 * value for key, value in some_adapter(0).items()}
    selected = set()
    for seed in range(20):
        updates = [moved(start, 100 * seed + n, std=std) for n in range(7)]
        expected = krum_by_the_paper([flattened(update) for update in updates], 2)
        found = step(make_strategy("krum", {"num_malicious": 2}), 1, start, updates)
        assert same_bytes(found, updates[expected])
        selected.add(expected)
    assert len(selected) > 3


def test_krum_is_not_moved_by_two_of_seven() -> None:
    start = some_adapter(0)
    updates = [moved(start, n, std=0.01) for n in range(7)]
    for bad in (1, 4):
        updates[bad] = {key: value + 50 for key, value in start.items()}
    found = step(make_strategy("krum", {"num_malicious": 2}), 1, start, updates)
    assert any(same_bytes(found, updates[n]) for n in (0, 2, 3, 5, 6))


def test_distances_do_not_depend_on_how_values_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    updates = [records.to_record(some_adapter(n)) for n in range(4)]
    sent = records.to_record(some_adapter(9))
    whole = squared_distances(updates, sent)
    monkeypatch.setattr("pkgllm.federation.algorithms.krum._CHUNK", 4)
    np.testing.assert_allclose(squared_distances(updates, sent), whole, rtol=1e-12, atol=1e-12)
    vectors = [flattened(some_adapter(n)) for n in range(4)]
    direct = [[float(((one - other) ** 2).sum()) for other in vectors] for one in vectors]
    np.testing.assert_allclose(whole, direct, rtol=1e-9, atol=1e-9)
    assert closest_to_most(whole, 0) == krum_by_the_paper(vectors, 0)


@pytest.mark.parametrize("chosen", ALL, ids=lambda chosen: "-".join(chosen))
def test_an_aggregation_holds_less_than_four_adapters_beside_replies_and_memory(
    chosen: tuple[StrategyName, Aggregation],
) -> None:
    generator = torch.Generator().manual_seed(0)
    shapes = {"lora_A": (4, 200), "lora_B": (200, 4)}
    adapter = {
        f"{layer:03}.{name}": torch.randn(shape, generator=generator)
        for layer in range(80)
        for name, shape in shapes.items()
    }
    clients = [f"p{number}" for number in range(7)]
    num_bytes = 4 * sum(value.numel() for value in adapter.values())
    strategy = made(chosen)
    for round_num in (1, 2):
        updates = [{k: v + 1e-3 * (n + 1) for k, v in adapter.items()} for n in range(7)]
        replies = replies_of(updates, [1.0] * 7)
        config = records.instruction_config(round_num, 0.1)
        strategy.configure_train(
            round_num, records.to_record(adapter), config, cohort_grid(clients)
        )
        tracemalloc.start()
        strategy.aggregate_train(round_num, replies)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        state = sum(value.nbytes for value in strategy.state_dict().values())
        assert peak - state < 4 * num_bytes
