import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

import pytest
import torch
from flwr.app import (
    ArrayRecord,
    ConfigRecord,
    Context,
    Message,
    MessageType,
    MetricRecord,
    RecordDict,
)
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg, FedMedian
from hypothesis import given
from hypothesis import strategies as st

from helpers.quadratic_clients import QuadraticClients, adapter_at, same_bytes
from pkgllm.errors import FederationError
from pkgllm.federation.algorithms.resumable import ResumableStrategy
from pkgllm.federation.algorithms.strategies import make_strategy
from pkgllm.federation.flower import records
from pkgllm.federation.flower.client_app import CohortApp
from pkgllm.federation.flower.grid import LocalGrid
from pkgllm.federation.rounds import RoundRecord, Rounds, run_rounds, sample_cohort
from pkgllm.lm.adapter import AdapterState

CLIENTS = {f"p{index}": 0.37 * index - 1.1 for index in range(7)}
populations = st.lists(st.text(), unique=True, min_size=1, max_size=30)


class Median(FedMedian, ResumableStrategy):
    """One of Flower's, with nothing to remember."""


class Mean(FedAvg, ResumableStrategy):
    """Flower's, with any arguments."""


def rounds(
    grid: LocalGrid,
    *,
    strategy: ResumableStrategy | None = None,
    num_rounds: int = 3,
    cohort_size: int = 3,
    seed: int = 5,
    first_round: int = 1,
    initial: AdapterState | None = None,
    on_round: Callable[[RoundRecord], None] | None = None,
) -> AdapterState:
    return run_rounds(
        grid,
        Rounds(
            strategy=strategy or make_strategy("fedavg"),
            initial=adapter_at(0.1) if initial is None else initial,
            num_rounds=num_rounds,
            cohort_size=cohort_size,
            seed=seed,
            learning_rate=lambda round_num: 0.3 / round_num,
            timeout=60,
            on_round=on_round,
            first_round=first_round,
        ),
    )


def local_grid() -> LocalGrid:
    app = CohortApp(QuadraticClients(CLIENTS), weighting="uniform", report_private_metrics=False)
    return LocalGrid(app, list(CLIENTS))


@given(populations, st.integers(0, 99), st.integers(1, 50), st.data())
def test_a_cohort_is_a_sorted_subset_whatever_the_order(
    clients: list[str], seed: int, round_num: int, data: st.DataObject
) -> None:
    cohort_size = data.draw(st.integers(1, len(clients)))
    shuffled = data.draw(st.permutations(clients))
    cohort = sample_cohort(clients, cohort_size, seed, round_num)
    assert cohort == tuple(sorted(set(cohort)))
    assert len(cohort) == cohort_size
    assert set(cohort) <= set(clients)
    assert sample_cohort(shuffled, cohort_size, seed, round_num) == cohort


def test_every_client_is_drawn_equally_often_and_rounds_differ() -> None:
    clients = [f"p{index}" for index in range(10)]
    cohorts = [sample_cohort(clients, 3, 0, round_num) for round_num in range(1, 1001)]
    counts = Counter(client for cohort in cohorts for client in cohort)
    # 1000 draws with probability .3: mean 300, standard deviation sqrt(1000 * .3 * .7) = 14.5.
    assert all(abs(counts[client] - 300) < 4 * 14.5 for client in clients)
    # 10 choose 3 = 120 cohorts; each is missing after 1000 draws with probability 2e-4.
    assert len(set(cohorts)) > 110


def test_a_cohort_larger_than_the_population_says_so() -> None:
    with pytest.raises(FederationError, match=r"round 4: cohort_size .* clients, 2, got 3; lower"):
        sample_cohort(["a", "b"], 3, 0, 4)


def test_a_cohort_of_nobody_or_of_twins_is_refused() -> None:
    with pytest.raises(ValueError, match="cohort_size must be at least 1, got 0"):
        sample_cohort(["a"], 0, 0, 1)
    with pytest.raises(ValueError, match="must not hold an id twice"):
        sample_cohort(["a", "a"], 1, 0, 1)


def test_the_result_does_not_depend_on_the_global_random_state_nor_change_it() -> None:
    results = []
    for seed in (1, 2):
        random.seed(seed)
        before = random.getstate()
        results.append(rounds(local_grid()))
        assert random.getstate() == before
    assert same_bytes(results[0], results[1])


def test_another_seed_draws_other_cohorts() -> None:
    seen: dict[int, list[tuple[str, ...]]] = {5: [], 6: []}
    for seed, cohorts in seen.items():
        rounds(local_grid(), seed=seed, on_round=lambda r, to=cohorts: to.append(r.cohort))  # type: ignore[misc]
    assert seen[5] != seen[6]


def test_equals_flowers_own_loop_where_everybody_takes_part() -> None:
    ours = run_rounds(
        local_grid(),
        Rounds(
            strategy=make_strategy("fedavg"),
            initial=adapter_at(0.1),
            num_rounds=4,
            cohort_size=len(CLIENTS),
            seed=0,
            learning_rate=lambda _: 0.3,
            timeout=60,
        ),
    )
    theirs = make_strategy("fedavg").start(
        local_grid(),
        records.to_record(adapter_at(0.1)),
        num_rounds=4,
        train_config=ConfigRecord({"round_num": 0, "learning_rate": 0.3}),
    )
    assert same_bytes(ours, records.to_adapter(theirs.arrays))


def test_a_run_that_goes_on_equals_one_that_never_stopped() -> None:
    half = rounds(local_grid(), num_rounds=2)
    assert same_bytes(
        rounds(local_grid(), num_rounds=5, first_round=3, initial=half),
        rounds(local_grid(), num_rounds=5),
    )
    assert same_bytes(rounds(local_grid(), num_rounds=2, first_round=3, initial=half), half)


@pytest.mark.parametrize(
    "strategy", [make_strategy("fedavg"), make_strategy("fedprox", {"proximal_mu": 0.0})]
)
def test_a_cohort_is_sent_the_baseline_of_the_adapter_that_it_starts_from(
    strategy: ResumableStrategy,
) -> None:
    clients = QuadraticClients({"a": 4.0, "b": 12.0})
    app = CohortApp(clients, weighting="uniform", report_private_metrics=False)
    seen: list[RoundRecord] = []
    run_rounds(
        LocalGrid(app, list(clients.targets)),
        Rounds(
            strategy=strategy,
            initial=adapter_at(2.0),
            num_rounds=3,
            cohort_size=2,
            seed=0,
            learning_rate=lambda _: 0.5,
            timeout=60,
            on_round=seen.append,
            kl_baseline=lambda adapter: 10 * float(adapter["layer.lora_A"].mean()),
        ),
    )
    # From 2 half way to the mean of 4 and 12, three times: 2, 5, 6.5.
    assert [record.kl_baseline for record in seen] == [20.0, 50.0, 65.0]
    assert clients.baselines == [20.0, 50.0, 65.0]


def test_without_a_baseline_none_is_sent() -> None:
    clients = QuadraticClients(CLIENTS)
    app = CohortApp(clients, weighting="uniform", report_private_metrics=False)
    seen: list[RoundRecord] = []
    rounds(LocalGrid(app, list(CLIENTS)), num_rounds=2, on_round=seen.append)
    assert clients.baselines == [record.kl_baseline for record in seen] == [None, None]


def test_another_of_flowers_strategies_fits() -> None:
    strategy = Median(
        fraction_evaluate=0.0, min_train_nodes=1, min_available_nodes=1, weighted_by_key="weight"
    )
    grid = LocalGrid(
        CohortApp(
            QuadraticClients({"a": 0.0, "b": 1.0, "c": 50.0}),
            weighting="uniform",
            report_private_metrics=False,
        ),
        ["a", "b", "c"],
    )
    # From 0 with step .3: 0, .3, 15; the median is .3.
    after = rounds(grid, strategy=strategy, num_rounds=1, initial=adapter_at(0.0))
    torch.testing.assert_close(after, adapter_at(0.3))


def test_a_strategy_that_would_wait_for_ever_is_refused() -> None:
    with pytest.raises(ValueError, match="min_train_nodes must be at most cohort_size, 1, got 2"):
        rounds(local_grid(), strategy=Mean(), cohort_size=1)


def test_a_strategy_that_leaves_out_part_of_the_cohort_is_refused() -> None:
    strategy = Mean(
        fraction_train=0.5, min_train_nodes=1, min_available_nodes=1, weighted_by_key="weight"
    )
    with pytest.raises(ValueError, match="whole cohort of 3 clients, it addressed 1; set fraction"):
        rounds(local_grid(), strategy=strategy)


def test_a_round_before_the_first_is_refused() -> None:
    with pytest.raises(ValueError, match="first_round must be at least 1, got 0"):
        rounds(local_grid(), first_round=0)


class EchoingClients:
    """Answer the adapter they got, with these metrics."""

    def __init__(self, metrics_by_client: dict[str, dict[str, float]]) -> None:
        self._metrics = metrics_by_client
        self.flower_app = ClientApp()
        self.flower_app.query()(self._say_who)

    def answer(self, messages: Sequence[Message], contexts: Sequence[Context]) -> list[Message]:
        return list(map(self._echo, messages, contexts))

    def _say_who(self, message: Message, context: Context) -> Message:
        return records.client_reply(message, str(context.node_config["client-id"]))

    def _echo(self, message: Message, context: Context) -> Message:
        arrays: ArrayRecord = message.content.array_records["arrays"]
        metrics = MetricRecord(dict(self._metrics[str(context.node_config["client-id"])]))
        return Message(RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=message)


def test_a_client_that_reports_other_metrics_is_left_out_even_as_the_first() -> None:
    sent = {"a": {"weight": 1.0, "x": 3.0}, "b": {"weight": 1.0}, "c": {"weight": 1.0}}
    seen: list[RoundRecord] = []
    grid = LocalGrid(EchoingClients(sent), list(sent))
    rounds(grid, num_rounds=1, on_round=seen.append)
    assert seen[0].failed == {"a": "sent the metrics ('weight', 'x'), the others ('weight',)"}


def test_metrics_are_weighted_means_of_what_was_sent() -> None:
    sent = {"a": {"weight": 1.0, "loss": 2.0}, "b": {"weight": 3.0, "loss": 4.0}}
    seen: list[RoundRecord] = []
    grid = LocalGrid(EchoingClients(sent), list(sent))
    rounds(grid, num_rounds=1, cohort_size=2, on_round=seen.append)
    # The mean is (1 * 2 + 3 * 4) / 4.
    assert seen[0].metrics == {"loss": 3.5}


def test_a_client_that_does_not_answer_is_left_out_and_named() -> None:
    class Lossy(LocalGrid):
        """Loses what the client ``b`` sends after it said who it is."""

        def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
            return [
                reply
                for reply in super().pull_messages(message_ids)
                if reply.metadata.message_type != MessageType.TRAIN
                or reply.metadata.src_node_id != self.node_ids["b"]
            ]

    clients = QuadraticClients({"a": 4.0, "b": 99.0, "c": 12.0})
    app = CohortApp(clients, weighting="uniform", report_private_metrics=False)
    seen: list[RoundRecord] = []
    grid = Lossy(app, list(clients.targets))
    after = rounds(grid, num_rounds=1, initial=adapter_at(0.0), on_round=seen.append)
    # From 0 with step .3: 1.2 and 3.6; the mean is 2.4.
    torch.testing.assert_close(after, adapter_at(2.4))
    assert seen[0].failed == {"b": "no reply within 60 s"}


def test_two_nodes_of_one_client_are_refused() -> None:
    class Twins(EchoingClients):
        def _say_who(self, message: Message, context: Context) -> Message:
            return records.client_reply(message, "twin")

    with pytest.raises(
        FederationError, match="2 nodes are connected, 2 answered, with 1 different"
    ):
        rounds(LocalGrid(Twins({}), ["a", "b"]))
