"""The round loop: draws cohorts, has them trained, aggregates, and tells what happened.

A round depends on nothing but its arguments, so a run can begin at any of them. What carries
instructions and updates is a :class:`~pkgllm.federation.messages.Transport`.
"""

import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from pkgllm.errors import BudgetError, FederationError
from pkgllm.federation.algorithm import Aggregate, Algorithm, RoundFacts
from pkgllm.federation.cohort import COHORT, sample_cohort
from pkgllm.federation.limits import UpdateLimits, weight_shares
from pkgllm.federation.means import weighted_metrics
from pkgllm.federation.messages import (
    Fault,
    Instruction,
    Transport,
    Update,
    failure_reason,
)
from pkgllm.federation.round_privacy import RoundPrivacy
from pkgllm.federation.server_state import ServerState
from pkgllm.federation.spread import UpdateSpread, update_spread
from pkgllm.federation.updates import usable_updates
from pkgllm.lm.adapter import AdapterState, update_norm
from pkgllm.training.local import KlBaseline, no_baseline

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RoundRecord:
    """What one round did."""

    round_num: int
    cohort: tuple[str, ...]
    """The clients that were drawn, sorted."""
    failed: Mapping[str, str]
    """The clients whose update was left out, and why."""
    not_aggregated: str | None
    """Why the adapter stayed as it was; None where it did not."""
    weights: Mapping[str, float]
    """Each aggregated client's share of the sum of weights."""
    metrics: Mapping[str, float]
    """Weighted means of what the clients chose to send; empty unless they report privately."""
    adapter: AdapterState
    """The adapter after the round."""
    state: Mapping[str, Tensor]
    """What the server remembers for the rounds to come."""
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Rounds:
    """Which rounds are run, and how.

    Raises:
        ValueError: If a number is out of range.
    """

    algorithm: Algorithm
    """Makes the next adapter of the cohort's updates."""
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
    local_steps: int = 1
    """Optimiser steps of every client in every round."""
    aggregate: Aggregate | None = None
    """How updates become one; None leaves it to the algorithm."""
    min_updates: int = 1
    """Usable updates that a round needs."""
    limits: UpdateLimits | None = None
    """How much one update may count; None where nobody needs to be bounded."""
    on_round: Callable[[RoundRecord], None] | None = None
    """Called after each round."""
    first_round: int = 1
    """Above 1 where a run goes on."""
    state: Mapping[str, Tensor] | None = None
    """What the server remembered before ``first_round``; None for nothing."""
    privacy: RoundPrivacy | None = None
    """Draws cohorts, makes updates private, and ends training before the budget is exceeded; None
    for no guarantee."""
    kl_baseline: KlBaseline = no_baseline
    """What the cohort is sent beside the adapter of a round."""
    cohort_stream: tuple[str, ...] = COHORT
    """Names of the random stream that cohorts are drawn from, but for the round's number."""
    clients: Collection[str] | None = None
    """Ids of all training clients; those that are connected if absent. Cohorts are drawn from the
    connected ones; with ``privacy`` from all, since that is what a guarantee is computed from."""

    def __post_init__(self) -> None:
        """Check the numbers."""
        if self.first_round < 1:
            raise ValueError(f"first_round must be at least 1, got {self.first_round}")
        if not 1 <= self.min_updates <= self.cohort_size:
            raise ValueError(
                f"min_updates must be from 1 to cohort_size, {self.cohort_size}, got "
                f"{self.min_updates}"
            )


def run_rounds(transport: Transport, rounds: Rounds) -> AdapterState:
    """Train an adapter for some rounds and return it.

    On the same replies the result is the same to the bit: updates are aggregated in order of
    client id, and the global random state is neither used nor changed.

    Args:
        transport: Reaches the clients.
        rounds: What is done.

    Raises:
        FederationError: If there are too few clients, or too few of a cohort send a usable update.
        BudgetError: If that is because their own privacy budgets are spent, in the first round; in
            a later one training ends before it.
        ValueError: If the state is not one of this algorithm, this adapter and these clients.
    """
    privacy = rounds.privacy
    connected = sorted(transport.clients(rounds.timeout))
    everybody = sorted(connected if rounds.clients is None else rounds.clients)
    population = connected if privacy is None else everybody
    server = ServerState.begin(rounds.algorithm, rounds.initial, everybody, rounds.state)
    for round_num in range(rounds.first_round, rounds.num_rounds + 1):
        cohort = privacy.draw(population, round_num) if privacy else None
        if cohort is None:
            cohort = sample_cohort(
                population, rounds.cohort_size, rounds.seed, round_num, rounds.cohort_stream
            )
        if privacy and not privacy.admits(round_num, cohort):
            logger.warning(
                "round %d would exceed the privacy budget, so training ends before it", round_num
            )
            break
        try:
            record, server = _run_round(
                transport, rounds, server, round_num=round_num, cohort=cohort, connected=connected
            )
        except BudgetError as error:
            if round_num == 1:
                raise
            logger.warning("%s, so training ends before it", error)
            break
        if rounds.on_round:
            rounds.on_round(record)
    return server.adapter


def _run_round(
    transport: Transport,
    rounds: Rounds,
    server: ServerState,
    *,
    round_num: int,
    cohort: Sequence[str],
    connected: Collection[str],
) -> tuple[RoundRecord, ServerState]:
    privacy, before = rounds.privacy, server.adapter
    started = time.perf_counter()
    noise = privacy.begin(round_num, cohort) if privacy else None
    baseline = rounds.kl_baseline(before)
    broadcast = rounds.algorithm.broadcast(server.memory)
    asked = {
        client: Instruction(
            adapter=before,
            round_num=round_num,
            learning_rate=rounds.learning_rate(round_num),
            broadcast=broadcast,
            kl_baseline=baseline,
            accepted_round=server.accepted_rounds.get(client, 0)
            if rounds.algorithm.client_state
            else None,
            local_noise=noise,
        )
        for client in cohort
        if client in connected
    }
    delivery = transport.exchange(asked, rounds.timeout)
    trained = time.perf_counter()
    replies = {
        client: delivery.replies.get(client, Fault(f"no reply within {rounds.timeout:g} s"))
        for client in asked
    }
    updates, faults = usable_updates(replies, before)
    if rounds.limits is not None:
        updates, too_long = rounds.limits.apply(updates, before)
        faults |= too_long
    absent = dict.fromkeys((client for client in cohort if client not in asked), "not connected")
    failed = dict(sorted((absent | faults).items()))
    for client, reason in failed.items():
        logger.warning("round %d: client %s is left out: %s", round_num, client, reason)
    # A cohort that was drawn smaller than that, or is not connected, is no failure.
    if len(updates) < min(rounds.min_updates, len(asked)):
        raise _too_few(round_num, rounds.min_updates, updates, faults, failed)
    sent = [update.adapter for update in updates.values()]
    spread = update_spread(before, sent)
    if spread.norms.max == 0:
        logger.warning("round %d: no client learnt anything: all updates are zero", round_num)
    aggregating = time.perf_counter()
    release = privacy.release(round_num, before, sent) if privacy else None
    facts = RoundFacts(
        round_num=round_num,
        learning_rate=rounds.learning_rate(round_num),
        local_steps=rounds.local_steps,
        num_clients=len(server.accepted_rounds),
        cohort_size=len(updates) if release is None else rounds.cohort_size,
    )
    aggregated = list(updates.values()) if release is None else [Update(adapter=release)]
    if not aggregated:
        raise FederationError(f"round {round_num}: there must be an update, got none")
    after, refusal = server, None
    least = rounds.algorithm.least_updates(len(cohort))
    if release is None and len(updates) < least:
        refusal = f"{rounds.algorithm.name} needs {least} usable updates, got {len(updates)}"
    else:
        aggregate = rounds.aggregate or rounds.algorithm.aggregator(len(cohort))
        after = server.after(rounds.algorithm, aggregate(aggregated, before), facts, updates)
        if not after.is_finite():
            after, refusal = server, "the aggregate holds NaN or infinity"
    if refusal is not None:
        logger.warning("round %d: the adapter stays as it was: %s", round_num, refusal)
    finished = time.perf_counter()
    record = RoundRecord(
        round_num=round_num,
        cohort=tuple(cohort),
        failed=failed,
        not_aggregated=refusal,
        weights=weight_shares(updates),
        metrics=weighted_metrics(aggregated),
        adapter=after.adapter,
        state=after.tensors(),
        seconds=time.perf_counter() - started,
        training_seconds=trained - started,
        aggregation_seconds=finished - aggregating,
        bytes_down=delivery.bytes_down,
        bytes_up=delivery.bytes_up,
        update_norm=update_norm(before, after.adapter),
        kl_baseline=baseline,
        spread=spread,
    )
    return record, after


def _too_few(
    round_num: int,
    needed: int,
    updates: Collection[str],
    faults: Mapping[str, str],
    failed: Mapping[str, str],
) -> FederationError | BudgetError:
    if all(reason == failure_reason(client, BudgetError) for client, reason in faults.items()):
        return BudgetError(
            f"round {round_num}: at least {needed} of {len(updates) + len(faults)} clients must "
            f"send an update, and the privacy budgets of {len(faults)} are spent"
        )
    shown = list(failed)[:10]
    more = f" and {len(failed) - len(shown)} more" if len(failed) > len(shown) else ""
    return FederationError(
        f"round {round_num}: at least {needed} of {len(updates) + len(failed)} clients must send a "
        f"usable update, {len(updates)} did; failed are {', '.join(shown)}{more}; the first "
        f"reason: {failed[shown[0]]}; what went wrong is in the log of the clients"
    )
