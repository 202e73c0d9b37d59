"""The server's side, and the local runtime that puts both sides into one process."""

from collections.abc import Callable, Collection, Mapping, Sequence

from flwr.app import Context, Message, RecordDict
from flwr.serverapp import Grid, ServerApp
from torch import Tensor

from pkgllm.federation.client_app import CohortApp
from pkgllm.federation.client_controls import ClientControls
from pkgllm.federation.client_noise import ClientNoise
from pkgllm.federation.flower_internals import RUN_ID, SUPERLINK_NODE_ID
from pkgllm.federation.grid import LocalGrid
from pkgllm.federation.records import ARRAYS, Weighting, to_adapter, to_record
from pkgllm.federation.resumable import ResumableStrategy
from pkgllm.federation.round_privacy import RoundPrivacy
from pkgllm.federation.rounds import RoundRecord, run_rounds
from pkgllm.federation.strategies import make_strategy
from pkgllm.lm.adapter import AdapterState
from pkgllm.training.local import CohortTrainer, KlBaseline, no_baseline


def make_server_app(
    *,
    strategy: ResumableStrategy,
    initial: AdapterState,
    num_rounds: int,
    cohort_size: int,
    seed: int,
    learning_rate: Callable[[int], float],
    timeout: float,
    min_updates: int = 1,
    on_round: Callable[[RoundRecord], None] | None = None,
    first_round: int = 1,
    strategy_state: Mapping[str, Tensor] | None = None,
    privacy: RoundPrivacy | None = None,
    kl_baseline: KlBaseline = no_baseline,
    clients: Collection[str] | None = None,
) -> ServerApp:
    """Return Flower's app for the server: :func:`run_rounds` with these arguments.

    The last adapter is left in the context's state, as ``arrays``.
    """
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        adapter = run_rounds(
            grid=grid,
            strategy=strategy,
            initial=initial,
            num_rounds=num_rounds,
            cohort_size=cohort_size,
            seed=seed,
            learning_rate=learning_rate,
            timeout=timeout,
            min_updates=min_updates,
            on_round=on_round,
            first_round=first_round,
            strategy_state=strategy_state,
            privacy=privacy,
            kl_baseline=kl_baseline,
            clients=clients,
        )
        context.state[ARRAYS] = to_record(adapter)

    return app


def federate(
    *,
    trainer: CohortTrainer,
    clients: Sequence[str],
    initial: AdapterState,
    num_rounds: int,
    cohort_size: int,
    seed: int,
    learning_rate: Callable[[int], float],
    strategy: ResumableStrategy | None = None,
    controls: ClientControls | None = None,
    noise: ClientNoise | None = None,
    weighting: Weighting = "uniform",
    report_private_metrics: bool = False,
    timeout: float = 3600.0,
    min_updates: int = 1,
    on_round: Callable[[RoundRecord], None] | None = None,
    on_message: Callable[[Message], None] | None = None,
    first_round: int = 1,
    strategy_state: Mapping[str, Tensor] | None = None,
    privacy: RoundPrivacy | None = None,
    kl_baseline: KlBaseline = no_baseline,
) -> AdapterState:
    """Run server and clients in this process and return the adapter after the last round.

    Args:
        trainer: Trains the clients of a round from the adapters they received.
        clients: Ids of the clients that take part.
        initial: The adapter before ``first_round``.
        num_rounds: Number of the last round.
        cohort_size: Clients in each round.
        seed: The run's seed.
        learning_rate: The local step size of each round, by its number.
        strategy: How updates become the next adapter; the weighted mean when absent.
        controls: The clients' control variates, which SCAFFOLD needs.
        noise: What protects every update before it is sent, where ``privacy`` counts on it.
        weighting: Weight of a client's update: equal, or its number of groups.
        report_private_metrics: Whether the clients send their number of groups and loss.
        timeout: Seconds after which a client counts as failed; see
            :meth:`~pkgllm.federation.grid.LocalGrid.send_and_receive`.
        min_updates: Usable updates that a round needs.
        on_round: Called after each round.
        on_message: Called with every message, down and up.
        first_round: Number of the first round; above 1 where a run goes on.
        strategy_state: What the strategy remembered before ``first_round``; None for nothing.
        privacy: As for :func:`~pkgllm.federation.rounds.run_rounds`.
        kl_baseline: What the clients are sent beside the adapter of a round.

    Raises:
        FederationError: If there are too few clients, or too few of a cohort send a usable update.
        ValueError: If an argument is out of range.
    """
    cohort_app = CohortApp(
        trainer,
        weighting=weighting,
        report_private_metrics=report_private_metrics,
        controls=controls,
        noise=noise,
    )
    server_app = make_server_app(
        strategy=strategy or make_strategy("fedavg"),
        initial=initial,
        num_rounds=num_rounds,
        cohort_size=cohort_size,
        seed=seed,
        learning_rate=learning_rate,
        timeout=timeout,
        min_updates=min_updates,
        on_round=on_round,
        first_round=first_round,
        strategy_state=strategy_state,
        privacy=privacy,
        kl_baseline=kl_baseline,
    )
    return run_in_process(server_app, cohort_app, clients, on_message=on_message)


def run_in_process(
    server_app: ServerApp,
    cohort_app: CohortApp,
    clients: Sequence[str],
    *,
    on_message: Callable[[Message], None] | None = None,
) -> AdapterState:
    """Run a server of :func:`make_server_app` with its clients here; return the last adapter.

    Args:
        server_app: The server.
        cohort_app: What the clients run.
        clients: Ids of the clients that take part.
        on_message: Called with every message, down and up.
    """
    context = Context(RUN_ID, SUPERLINK_NODE_ID, {}, RecordDict(), {})
    server_app(LocalGrid(cohort_app, clients, on_message=on_message), context)
    return to_adapter(context.state.array_records[ARRAYS])
