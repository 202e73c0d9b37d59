"""The round loop over Flower's strategy hooks, with our own sampling, order and fault handling.

Flower's own loop cannot start at a later round, draws clients with the global random state, and
ends well when every client failed. Here a round depends on nothing but its arguments.
"""

import logging
import random
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from flwr.app import ConfigRecord, Message, MessageType, RecordDict
from flwr.serverapp import Grid
from torch import Tensor

from pkgllm.errors import BudgetError, FederationError
from pkgllm.federation.algorithms.resumable import ResumableStrategy
from pkgllm.federation.flower import records
from pkgllm.federation.flower.grid import CohortGrid
from pkgllm.federation.round_privacy import RoundPrivacy
from pkgllm.federation.spread import UpdateSpread, update_spread
from pkgllm.lm.adapter import AdapterState, update_norm
from pkgllm.randomness import stream
from pkgllm.training.local import KlBaseline, no_baseline

logger = logging.getLogger(__name__)

NOBODY = 0
"""A node id that no node has."""


@dataclass(frozen=True, slots=True)
class RoundRecord:
    """What one round did."""

    round_num: int
    cohort: tuple[str, ...]
    """The clients that were drawn, sorted."""
    failed: Mapping[str, str]
    """The clients whose update was left out, and why."""
    metrics: Mapping[str, float]
    """Weighted means of what the clients chose to send; empty unless they report privately."""
    adapter: AdapterState
    """The adapter after the round."""
    strategy_state: Mapping[str, Tensor]
    """What the strategy remembers for the rounds to come."""
    seconds: float
    """Of the whole round."""
    training_seconds: float
    """Until the last reply was there."""
    aggregation_seconds: float
    bytes_down: int
    """Bytes of the records that were sent to the cohort."""
    bytes_up: int
    """Bytes of the records that came back."""
    update_norm: float
    """Euclidean length of the step from the adapter before the round."""
    kl_baseline: float | None
    """What the cohort was sent; None where the objective takes none."""
    spread: UpdateSpread
    """How the updates that were aggregated differ."""


def sample_cohort(
    clients: Sequence[str], cohort_size: int, seed: int, round_num: int
) -> tuple[str, ...]:
    """Draw the clients of a round uniformly without replacement.

    The draw depends on the set of clients, the seed and the round alone.

    Args:
        clients: Ids of all clients, in any order.
        cohort_size: How many to draw, at least 1.
        seed: The run's seed.
        round_num: The round, from 1.

    Returns:
        The cohort, sorted.

    Raises:
        FederationError: If there are fewer clients than the cohort needs.
        ValueError: If ``cohort_size`` is not positive or a client stands twice in ``clients``.

    Example:
        >>> sample_cohort(["c", "a", "b"], 3, seed=0, round_num=1)
        ('a', 'b', 'c')
    """
    if cohort_size < 1:
        raise ValueError(f"cohort_size must be at least 1, got {cohort_size}")
    population = sorted(clients)
    if len(set(population)) != len(population):
        raise ValueError("clients must not hold an id twice")
    if cohort_size > len(population):
        raise FederationError(
            f"round {round_num}: cohort_size must be at most the number of training clients, "
            f"{len(population)}, got {cohort_size}; lower it or add clients"
        )
    drawn = stream(seed, "cohort", round_num).choice(
        len(population), size=cohort_size, replace=False
    )
    return tuple(population[index] for index in sorted(drawn))


@dataclass(frozen=True, slots=True, kw_only=True)
class Rounds:
    """Which rounds are run, and how.

    Raises:
        ValueError: If a number is out of range, or the strategy does not fit the cohort.
    """

    strategy: ResumableStrategy
    """Aggregates; must address every node that it is shown (``fraction_train=1``)."""
    initial: AdapterState
    """The adapter before ``first_round``."""
    num_rounds: int
    """Number of the last round."""
    cohort_size: int
    """Clients in each round."""
    seed: int
    """The run's seed, from which the cohorts are drawn."""
    learning_rate: Callable[[int], float]
    """The local step size of each round, by its number."""
    timeout: float
    """Seconds after which a client counts as failed."""
    min_updates: int = 1
    """Usable updates that a round needs."""
    on_round: Callable[[RoundRecord], None] | None = None
    """Called after each round."""
    first_round: int = 1
    """Above 1 where a run goes on."""
    strategy_state: Mapping[str, Tensor] | None = None
    """What the strategy remembered before ``first_round``; None for nothing."""
    privacy: RoundPrivacy | None = None
    """Draws cohorts, makes updates private, and ends training before the budget is exceeded; None
    for no guarantee."""
    kl_baseline: KlBaseline = no_baseline
    """What the cohort is sent beside the adapter of a round."""
    clients: Collection[str] | None = None
    """Ids of all from whom cohorts are drawn, whether they are connected or not; those that are
    connected if absent."""

    def __post_init__(self) -> None:
        """Check the numbers, and the strategy against the cohort."""
        if self.first_round < 1:
            raise ValueError(f"first_round must be at least 1, got {self.first_round}")
        if not 1 <= self.min_updates <= self.cohort_size:
            raise ValueError(
                f"min_updates must be from 1 to cohort_size, {self.cohort_size}, got "
                f"{self.min_updates}"
            )
        # Flower's strategies wait for ever when fewer nodes are connected than they want.
        for name in ("min_train_nodes", "min_available_nodes"):
            least = getattr(self.strategy, name, 0)
            if least > self.cohort_size:
                raise ValueError(
                    f"{name} must be at most cohort_size, {self.cohort_size}, got {least}"
                )


def run_rounds(grid: Grid, rounds: Rounds) -> AdapterState:
    """Train an adapter for some rounds and return it.

    On the same replies the result is the same to the bit: updates are aggregated in order of
    client id, and the global random state is neither used nor changed.

    Args:
        grid: Reaches the clients.
        rounds: What is done.

    Raises:
        FederationError: If there are too few clients, or too few of a cohort send a usable update.
        BudgetError: If that is because their own privacy budgets are spent, in the first round; in
            a later one training ends before it.
        ValueError: If the strategy leaves out some of a cohort.
    """
    privacy = rounds.privacy
    if rounds.strategy_state is not None:
        arrays = {key: value.numpy() for key, value in rounds.strategy_state.items()}
        rounds.strategy.load_state_dict(arrays, records.to_record(rounds.initial))
    nodes = _node_by_client(grid, rounds.timeout)
    # In order already, so that sorting it for each draw costs next to nothing.
    population = sorted(nodes if rounds.clients is None else rounds.clients)
    adapter = rounds.initial
    for round_num in range(rounds.first_round, rounds.num_rounds + 1):
        cohort = privacy.draw(population, round_num) if privacy else None
        if cohort is None:
            cohort = sample_cohort(population, rounds.cohort_size, rounds.seed, round_num)
        if privacy and not privacy.admits(round_num, cohort):
            logger.warning(
                "round %d would exceed the privacy budget, so training ends before it", round_num
            )
            break
        try:
            record = _run_round(
                grid,
                rounds,
                adapter,
                round_num=round_num,
                cohort=cohort,
                nodes={client: nodes[client] for client in cohort if client in nodes},
            )
        except BudgetError as error:
            if round_num == 1:
                raise
            logger.warning("%s, so training ends before it", error)
            break
        adapter = record.adapter
        if rounds.on_round:
            rounds.on_round(record)
    return adapter


def _node_by_client(grid: Grid, timeout: float) -> dict[str, int]:
    """Ask every node which client it is; a runtime may number its nodes anew in each run."""
    messages = [
        grid.create_message(RecordDict(), MessageType.QUERY, node_id, group_id="clients")
        for node_id in grid.get_node_ids()
    ]
    replies = list(grid.send_and_receive(messages, timeout=timeout))
    named = [reply for reply in replies if not reply.has_error()]
    nodes = {records.read_client(reply): reply.metadata.src_node_id for reply in named}
    if len(nodes) != len(messages):
        errors = [reply.error.reason for reply in replies if reply.has_error()]
        first = f"; the first error: {errors[0]}" if errors else ""
        raise FederationError(
            f"every node must name one client of its own; {len(messages)} nodes are connected, "
            f"{len(named)} answered, with {len(nodes)} different clients; set client-id in the "
            f"configuration of each node{first}"
        )
    return nodes


def _run_round(
    grid: Grid,
    rounds: Rounds,
    adapter: AdapterState,
    *,
    round_num: int,
    cohort: Sequence[str],
    nodes: Mapping[str, int],
) -> RoundRecord:
    strategy, privacy, timeout = rounds.strategy, rounds.privacy, rounds.timeout
    started = time.perf_counter()
    noise = privacy.begin(round_num, cohort) if privacy else None
    baseline = rounds.kl_baseline(adapter)
    config = records.instruction_config(
        round_num, rounds.learning_rate(round_num), kl_baseline=baseline, local_noise=noise
    )
    messages = _instructions(grid, strategy, adapter, round_num, nodes, config)
    received = {
        reply.metadata.src_node_id: reply
        for reply in grid.send_and_receive(messages, timeout=timeout)
    }
    trained = time.perf_counter()
    replies = {client: received[node] for client, node in nodes.items() if node in received}
    absent = dict.fromkeys((c for c in cohort if c not in nodes), "not connected")
    failed = dict(sorted((absent | _failures(replies, nodes, adapter, timeout)).items()))
    for client, reason in failed.items():
        logger.warning("round %d: client %s is left out: %s", round_num, client, reason)
    # Before the strategy, because some take the updates apart.
    bytes_up = sum(map(records.num_bytes, received.values()))
    good = [replies[client] for client in nodes if client not in failed]
    # A cohort that was drawn smaller than that, or is not connected, is no failure.
    if len(good) < min(rounds.min_updates, len(nodes)):
        unable = failed.keys() - absent.keys()
        if all(failed[c] == records.failure_reason(c, BudgetError) for c in unable):
            raise BudgetError(
                f"round {round_num}: at least {rounds.min_updates} of {len(nodes)} clients must "
                f"send an update, and the privacy budgets of {len(unable)} are spent"
            )
        raise FederationError(_too_few(round_num, rounds.min_updates, len(good), failed))
    spread = update_spread(adapter, [records.array_reader(reply) for reply in good])
    aggregating = time.perf_counter()
    means = None
    noisy_mean = privacy.release(round_num, adapter, good) if privacy else None
    if noisy_mean is None:
        arrays, means = strategy.aggregate_train(round_num, good)
    else:
        accepted = [client for client in nodes if client not in failed]
        arrays = strategy.aggregate_noisy_mean(round_num, noisy_mean, accepted, rounds.cohort_size)
    aggregated = time.perf_counter()
    if arrays is None:
        raise FederationError(
            f"round {round_num}: {type(strategy).__name__} made no adapter of {len(good)} updates"
        )
    after = records.to_adapter(arrays)
    return RoundRecord(
        round_num=round_num,
        cohort=tuple(cohort),
        failed=failed,
        metrics=records.to_metrics(means) if means else {},
        adapter=after,
        strategy_state={
            key: torch.from_numpy(np.array(value)) for key, value in strategy.state_dict().items()
        },
        seconds=time.perf_counter() - started,
        training_seconds=trained - started,
        aggregation_seconds=aggregated - aggregating,
        bytes_down=sum(map(records.num_bytes, messages)),
        bytes_up=bytes_up,
        update_norm=update_norm(adapter, after),
        kl_baseline=baseline,
        spread=spread,
    )


def _instructions(
    grid: Grid,
    strategy: ResumableStrategy,
    adapter: AdapterState,
    round_num: int,
    nodes: Mapping[str, int],
    config: ConfigRecord,
) -> list[Message]:
    """Let the strategy address the cohort; return its messages in order of client id."""
    # Flower's strategies would wait for ever for the first node of an empty cohort.
    clients = {node_id: client for client, node_id in nodes.items()} or {NOBODY: ""}
    view = CohortGrid(grid, clients)
    state = random.getstate()
    try:
        made = strategy.configure_train(round_num, records.to_record(adapter), config, view)
        by_node = {message.metadata.dst_node_id: message for message in made}
    finally:
        random.setstate(state)
    by_node.pop(NOBODY, None)
    if by_node.keys() != set(nodes.values()):
        raise ValueError(
            f"{type(strategy).__name__} must address the whole cohort of {len(nodes)} clients, "
            f"it addressed {len(by_node)}; set fraction_train to 1"
        )
    return [by_node[node_id] for node_id in nodes.values()]


def _failures(
    replies: Mapping[str, Message],
    cohort: Collection[str],
    adapter: AdapterState,
    timeout: float,
) -> dict[str, str]:
    """Return the clients whose replies cannot be aggregated, each with the reason."""
    failed = {
        client: f"no reply within {timeout:g} s" for client in cohort if client not in replies
    }
    for client, reply in replies.items():
        fault = records.update_fault(reply, adapter)
        if fault:
            failed[client] = fault
    names = {
        client: records.metric_names(reply)
        for client, reply in replies.items()
        if client not in failed
    }
    if names:
        # Flower gives up the whole round when the clients' metrics differ in name.
        ((usual, _),) = Counter(names.values()).most_common(1)
        for client, own in names.items():
            if own != usual:
                failed[client] = f"sent the metrics {own}, the others {usual}"
    return failed


def _too_few(round_num: int, needed: int, usable: int, failed: Mapping[str, str]) -> str:
    shown = list(failed)[:10]
    more = f" and {len(failed) - len(shown)} more" if len(failed) > len(shown) else ""
    return (
        f"round {round_num}: at least {needed} of {usable + len(failed)} clients must send a "
        f"usable update, {usable} did; failed are {', '.join(shown)}{more}; the first reason: "
        f"{failed[shown[0]]}; what went wrong is in the log of the clients"
    )
