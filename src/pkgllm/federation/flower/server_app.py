"""The server's side, and the local runtime that puts both sides into one process."""

from collections.abc import Callable, Sequence

from flwr.app import Context, Message, RecordDict
from flwr.serverapp import Grid, ServerApp

from pkgllm.federation.flower.client_app import CohortApp
from pkgllm.federation.flower.grid import LocalGrid
from pkgllm.federation.flower.internals import RUN_ID, SUPERLINK_NODE_ID
from pkgllm.federation.flower.records import ARRAYS, to_adapter, to_record
from pkgllm.federation.rounds import Rounds, run_rounds
from pkgllm.lm.adapter import AdapterState


def make_server_app(rounds: Rounds) -> ServerApp:
    """Return Flower's app for the server, which runs some rounds.

    The last adapter is left in the context's state, as ``arrays``.
    """
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        context.state[ARRAYS] = to_record(run_rounds(grid, rounds))

    return app


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
