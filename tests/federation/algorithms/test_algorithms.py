"""What holds for every algorithm of the registry, whatever it computes."""

import tracemalloc
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from helpers.algorithm_steps import Server, moved, some_adapter, with_defaults
from helpers.one_process import federate
from helpers.quadratic_clients import QuadraticClients, same_bytes
from helpers.tiny_cohorts import peak_bytes
from pkgllm.federation.algorithm import Aggregate, Algorithm
from pkgllm.federation.algorithms import ALGORITHMS
from pkgllm.federation.algorithms.aggregation import AGGREGATIONS
from pkgllm.federation.client_state import ClientStates
from pkgllm.federation.rounds import RoundRecord
from pkgllm.lm.adapter import AdapterState

DOCS = Path(__file__).parents[3] / "docs" / "aggregation.md"
OWN = [with_defaults(kind) for kind in ALGORITHMS.own()]
ALL: list[tuple[Algorithm, Aggregate | None]] = [
    (algorithm, aggregate)
    for aggregate in AGGREGATIONS.values()
    for algorithm in OWN
    if aggregate is None or not algorithm.compares_values
]
NAMES = [f"{algorithm.name}{'-products' if aggregate else ''}" for algorithm, aggregate in ALL]
every = pytest.mark.parametrize(("algorithm", "aggregate"), ALL, ids=NAMES)

CLIENTS = {f"p{index}": 0.37 * index - 1.1 for index in range(7)}
LOST = {2: {"p2", "p5"}, 5: {"p1", "p3"}}


class Unreliable(QuadraticClients):
    """Some updates of some rounds cannot be used."""

    def __call__(self, adapters: Mapping[str, AdapterState], **how: Any) -> Any:
        trained = super().__call__(adapters, **how)
        lost = LOST.get(how["round_num"], set()) & trained.keys()
        return trained | dict.fromkeys(lost, RuntimeError("lost"))


def run(
    algorithm: Algorithm, aggregate: Aggregate | None, folder: Path, **changes: Any
) -> RoundRecord:
    """Run rounds of five clients in seven; return the last one."""
    records: list[RoundRecord] = []
    settings: dict[str, Any] = {
        "initial": some_adapter(1),
        "num_rounds": 6,
        "cohort_size": 5,
        "seed": 5,
        "learning_rate": lambda round_num: 0.3 / round_num,
    }
    federate(
        trainer=Unreliable(CLIENTS, local_steps=3, curvatures={"p1": 2.0, "p4": 0.5}),
        clients=list(CLIENTS),
        algorithm=algorithm,
        aggregate=aggregate,
        local_steps=3,
        states=ClientStates(folder),
        on_round=records.append,
        **(settings | changes),
    )
    return records[-1]


@pytest.mark.parametrize("algorithm", OWN, ids=lambda algorithm: algorithm.name)
def test_each_is_cited_and_has_its_paragraph(algorithm: Algorithm) -> None:
    assert ALGORITHMS[algorithm.name] is type(algorithm)
    assert algorithm.citation
    headings = [line for line in DOCS.read_text().splitlines() if line.startswith("## ")]
    assert any(algorithm.name in heading.replace(",", " ").split() for heading in headings)


@every
def test_a_run_that_goes_on_is_the_same_to_the_bit(
    algorithm: Algorithm, aggregate: Aggregate | None, tmp_path: Path
) -> None:
    whole = run(algorithm, aggregate, tmp_path / "whole")
    half = run(algorithm, aggregate, tmp_path / "halves", num_rounds=3)
    assert all(value.dtype in (torch.float32, torch.int64) for value in half.state.values())
    kept = {name: value.clone() for name, value in half.state.items()}
    rest = {"first_round": 4, "initial": half.adapter}
    after = run(algorithm, aggregate, tmp_path / "halves", state=half.state, **rest)
    assert same_bytes(after.adapter, whole.adapter)
    assert after.state.keys() == whole.state.keys()
    assert all(torch.equal(value, whole.state[name]) for name, value in after.state.items())
    # What was taken out belongs to the caller.
    assert all(torch.equal(kept[name], half.state[name]) for name in kept)
    assert bool(half.state) == (bool(algorithm.init(some_adapter(0))) or algorithm.client_state)
    if half.state:
        forgot = run(algorithm, aggregate, tmp_path / "forgot", **rest)
        assert not same_bytes(forgot.adapter, whole.adapter)


@every
def test_a_single_update_is_enough(algorithm: Algorithm, aggregate: Aggregate | None) -> None:
    update = moved(some_adapter(0), 1, std=0.1)
    after = Server(algorithm, some_adapter(0), aggregate).take([update])
    if not algorithm.init(after):
        torch.testing.assert_close(
            after["layer.lora_B"] @ after["layer.lora_A"],
            update["layer.lora_B"] @ update["layer.lora_A"],
        )


@every
def test_what_a_step_is_given_stays_as_it_is(
    algorithm: Algorithm, aggregate: Aggregate | None
) -> None:
    server = Server(algorithm, some_adapter(0), aggregate)
    updates = [moved(some_adapter(0), seed, std=0.1) for seed in range(4)]
    given = [some_adapter(0), *(moved(some_adapter(0), seed, std=0.1) for seed in range(4))]
    before = server.adapter
    server.take(updates)
    assert all(map(same_bytes, [before, *updates], given))


@pytest.mark.parametrize("algorithm", OWN, ids=lambda algorithm: algorithm.name)
@pytest.mark.parametrize(
    "wrong",
    [
        {"momenta/layer.lora_A": torch.zeros(2, 3)},
        {"m/layer.lora_A": torch.zeros(3, 2), "m/layer.lora_B": torch.zeros(4, 2)},
        {"accepted_rounds": torch.zeros(3, dtype=torch.int64)},
    ],
)
def test_a_state_of_something_else_is_refused(
    algorithm: Algorithm, wrong: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=f"the state of {algorithm.name} must hold .*resume with"):
        run(algorithm, None, tmp_path, state=wrong)


@every
def test_an_aggregation_holds_less_than_four_adapters_beside_updates_and_memory(
    algorithm: Algorithm, aggregate: Aggregate | None
) -> None:
    generator = torch.Generator().manual_seed(0)
    shapes = {"lora_A": (4, 200), "lora_B": (200, 4)}
    adapter = {
        f"{layer:03}.{name}": torch.randn(shape, generator=generator)
        for layer in range(80)
        for name, shape in shapes.items()
    }
    server = Server(algorithm, adapter, aggregate)
    updates = [{k: v + 1e-3 * (n + 1) for k, v in adapter.items()} for n in range(7)]

    def take() -> None:
        server.take(updates)

    peak = peak_bytes(take)
    tracemalloc.start()
    take()
    peak += tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    memory = sum(value.nbytes for part in server.state.values() for value in part.values())
    assert peak - memory < 4 * sum(value.nbytes for value in adapter.values())
