"""The round loop over a transport without messages, and beside Flower's own loop."""

import random
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from flwr.app import ConfigRecord
from flwr.serverapp import strategy as flower

from helpers.one_process import quadratic_rounds
from helpers.quadratic_clients import QuadraticClients, adapter_at, same_bytes
from pkgllm.errors import FederationError
from pkgllm.federation.algorithm import Algorithm
from pkgllm.federation.algorithms.fedavg import FedAvg
from pkgllm.federation.algorithms.fedprox import FedProx
from pkgllm.federation.clients import LocalClients
from pkgllm.federation.flower import records
from pkgllm.federation.flower.client_app import CohortApp
from pkgllm.federation.flower.grid import LocalGrid
from pkgllm.federation.messages import Delivery, Fault, Instruction, Update
from pkgllm.federation.rounds import RoundRecord, Rounds, run_rounds
from pkgllm.lm.adapter import AdapterState

CLIENTS = {f"p{index}": 0.37 * index - 1.1 for index in range(7)}


class Echoing:
    """Clients that answer with the adapter they got, and what they are said to report."""

    def __init__(self, replies: Mapping[str, Callable[[AdapterState], Update | Fault]]) -> None:
        self.replies = replies

    def clients(self, timeout: float) -> list[str]:
        return list(self.replies)

    def exchange(self, instructions: Mapping[str, Instruction], timeout: float) -> Delivery:
        return Delivery(
            replies={
                client: self.replies[client](asked.adapter)
                for client, asked in instructions.items()
            }
        )


def echo(weight: float = 1.0, **metrics: float) -> Callable[[AdapterState], Update]:
    return lambda adapter: Update(adapter=adapter, weight=weight, metrics=metrics)


def one_round(
    replies: Mapping[str, Callable[[AdapterState], Update | Fault]], **changes: Any
) -> RoundRecord:
    seen: list[RoundRecord] = []
    settings: dict[str, Any] = {
        "algorithm": FedAvg(),
        "initial": adapter_at(0.1),
        "num_rounds": 1,
        "cohort_size": len(replies),
        "seed": 0,
        "learning_rate": lambda _: 0.3,
        "timeout": 60,
        "on_round": seen.append,
    }
    run_rounds(Echoing(replies), Rounds(**(settings | changes)))
    return seen[0]


def rounds(**changes: Any) -> AdapterState:
    settings: dict[str, Any] = {
        "initial": adapter_at(0.1),
        "num_rounds": 3,
        "cohort_size": 3,
        "seed": 5,
        "learning_rate": lambda round_num: 0.3 / round_num,
    }
    return quadratic_rounds(QuadraticClients(CLIENTS), **(settings | changes))


def test_the_result_does_not_depend_on_the_global_random_state_nor_change_it() -> None:
    results = []
    for seed in (1, 2):
        random.seed(seed)
        before = random.getstate()
        results.append(rounds())
        assert random.getstate() == before
    assert same_bytes(results[0], results[1])


def test_another_seed_draws_other_cohorts() -> None:
    seen: dict[int, list[RoundRecord]] = {5: [], 6: []}
    for seed, records_of in seen.items():
        rounds(seed=seed, on_round=records_of.append)
    assert [r.cohort for r in seen[5]] != [r.cohort for r in seen[6]]


def test_equals_flowers_own_loop_where_everybody_takes_part() -> None:
    ours = rounds(num_rounds=4, cohort_size=len(CLIENTS), learning_rate=lambda _: 0.3)
    app = CohortApp(LocalClients(QuadraticClients(CLIENTS), FedAvg()))
    theirs = flower.FedAvg(
        fraction_evaluate=0.0, min_train_nodes=1, min_available_nodes=1, weighted_by_key="weight"
    ).start(
        LocalGrid(app, list(CLIENTS)),
        records.to_record(adapter_at(0.1)),
        num_rounds=4,
        train_config=ConfigRecord({"round_num": 0, "learning_rate": 0.3}),
    )
    # Flower averages in an order of its own draw.
    torch.testing.assert_close(ours, records.to_adapter(theirs.arrays), rtol=0, atol=1e-6)


def test_a_run_that_goes_on_equals_one_that_never_stopped() -> None:
    half = rounds(num_rounds=2)
    assert same_bytes(rounds(num_rounds=5, first_round=3, initial=half), rounds(num_rounds=5))
    assert same_bytes(rounds(num_rounds=2, first_round=3, initial=half), half)


@pytest.mark.parametrize("algorithm", [FedAvg(), FedProx(proximal_mu=0.0)])
def test_a_cohort_is_sent_the_baseline_of_the_adapter_that_it_starts_from(
    algorithm: Algorithm,
) -> None:
    clients = QuadraticClients({"a": 4.0, "b": 12.0})
    seen: list[RoundRecord] = []
    quadratic_rounds(
        clients,
        algorithm=algorithm,
        initial=adapter_at(2.0),
        num_rounds=3,
        on_round=seen.append,
        kl_baseline=lambda adapter: 10 * float(adapter["layer.lora_A"].mean()),
    )
    # From 2 half way to the mean of 4 and 12, three times: 2, 5, 6.5.
    assert [record.kl_baseline for record in seen] == [20.0, 50.0, 65.0]
    assert clients.baselines == [20.0, 50.0, 65.0]


def test_without_a_baseline_none_is_sent() -> None:
    clients, seen = QuadraticClients(CLIENTS), list[RoundRecord]()
    quadratic_rounds(clients, num_rounds=2, on_round=seen.append)
    assert clients.baselines == [record.kl_baseline for record in seen] == [None, None]


def test_a_round_before_the_first_is_refused() -> None:
    with pytest.raises(ValueError, match="first_round must be at least 1, got 0"):
        rounds(first_round=0)


def test_a_client_that_reports_other_metrics_is_left_out_even_as_the_first() -> None:
    record = one_round({"a": echo(x=3.0), "b": echo(), "c": echo()})
    assert record.failed == {"a": "sent the metrics ('x',), the others ()"}


def test_metrics_are_weighted_means_of_what_was_sent() -> None:
    # The mean is (1 * 2 + 3 * 4) / 4.
    record = one_round({"a": echo(1.0, loss=2.0), "b": echo(3.0, loss=4.0)})
    assert record.metrics == {"loss": 3.5}


def test_a_client_that_does_not_answer_is_left_out_and_named() -> None:
    clients = QuadraticClients({"a": 4.0, "b": 99.0, "c": 12.0})
    seen: list[RoundRecord] = []
    after = quadratic_rounds(
        clients, lost=["b"], timeout=60, learning_rate=lambda _: 0.3, on_round=seen.append
    )
    # From 0 with step .3: 1.2 and 3.6; the mean is 2.4.
    torch.testing.assert_close(after, adapter_at(2.4))
    assert seen[0].failed == {"b": "no reply within 60 s"}


@pytest.mark.parametrize(
    ("update", "reason"),
    [
        (echo(weight=float("inf")), "weight must be positive and finite, got inf"),
        (echo(weight=0.0), "weight must be positive and finite, got 0.0"),
        (echo(loss=float("nan")), "metric loss must be one finite number, got nan"),
        (
            lambda adapter: Update(adapter={k: v.double() for k, v in adapter.items()}),
            "layer.lora_A must be float32 of shape (2, 3), got float64 of shape (2, 3)",
        ),
        (lambda adapter: Fault("went away"), "went away"),
    ],
)
def test_what_cannot_be_aggregated_is_left_out(
    update: Callable[[AdapterState], Update | Fault], reason: str
) -> None:
    assert one_round({"a": echo(), "b": update}).failed == {"b": reason}


def test_a_private_cohort_of_whom_nobody_is_connected_makes_no_adapter() -> None:
    class Nobody:
        """Draws somebody who is not there, and adds no noise."""

        def draw(self, clients: Any, round_num: int) -> tuple[str, ...]:
            return ("z",)

        def admits(self, round_num: int, cohort: Any) -> bool:
            return True

        def begin(self, round_num: int, cohort: Any) -> None: ...

        def release(self, round_num: int, before: Any, updates: Any) -> None: ...

    with pytest.raises(FederationError, match="round 1: there must be an update, got none"):
        one_round({"a": echo()}, privacy=Nobody(), clients=["a", "z"])


def test_a_round_in_which_nobody_learns_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    one_round({"a": echo(), "b": echo()})
    assert "round 1: no client learnt anything: all updates are zero" in caplog.text
    caplog.clear()

    def moved(adapter: AdapterState) -> Update:
        return Update(adapter={key: value + 1 for key, value in adapter.items()})

    one_round({"a": echo(), "b": moved})
    assert "no client learnt" not in caplog.text
