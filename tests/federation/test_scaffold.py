"""SCAFFOLD by hand, against drift, and with updates that are lost."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Context, Message, MessageType, RecordDict
from flwr.serverapp import Grid
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helpers.one_process import federate
from helpers.quadratic_clients import QuadraticClients, adapter_at, entries
from helpers.reply_lists import cohort_grid
from pkgllm.errors import FederationError
from pkgllm.federation.algorithms.client_controls import ClientControls
from pkgllm.federation.algorithms.scaffold import Scaffold
from pkgllm.federation.algorithms.strategies import make_strategy
from pkgllm.federation.control_store import ControlStore
from pkgllm.federation.flower import records
from pkgllm.federation.flower.client_app import CohortApp
from pkgllm.federation.flower.grid import LocalGrid
from pkgllm.federation.flower.internals import RUN_ID
from pkgllm.federation.rounds import RoundRecord, Rounds, run_rounds
from pkgllm.lm.adapter import AdapterState

KEY = "layer.lora_A"


class Federation:
    """Clients on quadratics, a store of theirs, and a server that can be lost."""

    def __init__(
        self,
        folder: Path,
        targets: Mapping[str, float],
        *,
        local_steps: int,
        curvatures: Mapping[str, float] | None = None,
        server_learning_rate: float = 1.0,
    ) -> None:
        self.clients = QuadraticClients(targets, local_steps=local_steps, curvatures=curvatures)
        self.store = ControlStore(folder / "controls", list(targets), adapter_at(0.0))
        self.controls = ClientControls(self.store, local_steps=local_steps)
        self.server_learning_rate = server_learning_rate
        self.strategy = self.fresh()

    def fresh(self) -> Scaffold:
        found = make_strategy(
            "scaffold",
            {"server_learning_rate": self.server_learning_rate},
            clients=list(self.clients.targets),
            local_steps=self.clients.local_steps,
        )
        assert isinstance(found, Scaffold)
        return found

    def run(self, grid: Grid | None = None, **changes: Any) -> AdapterState:
        app = CohortApp(
            self.clients, weighting="uniform", report_private_metrics=False, controls=self.controls
        )
        arguments: dict[str, Any] = {
            "strategy": self.strategy,
            "initial": adapter_at(0.0),
            "num_rounds": 1,
            "cohort_size": len(self.clients.targets),
            "seed": 0,
            "learning_rate": lambda _: 0.5,
            "timeout": 60,
        }
        own = LocalGrid(app, list(self.clients.targets))
        return run_rounds(grid or own, Rounds(**(arguments | changes)))

    def control(self) -> np.ndarray:
        """The server's mean control variate."""
        assert self.strategy.control is not None
        return self.strategy.control[KEY].numpy()

    def own(self, client: str) -> np.ndarray:
        """What the server counts on of a client."""
        accepted = self.strategy.accepted_rounds[client]
        return np.asarray(self.store.read(client, accepted_round=accepted)[KEY].numpy())


def test_two_rounds_by_hand(tmp_path: Path) -> None:
    # Two half steps from 0 towards 0 and 16 end at 0 and 12, so x = 6; K eta = 1, so the clients'
    # control variates are 0 and -12, and c = -6.
    federation = Federation(tmp_path, {"a": 0.0, "b": 16.0}, local_steps=2)
    assert entries(federation.run()) == {6.0}
    assert federation.own("a").min() == federation.own("a").max() == 0
    assert federation.own("b").min() == federation.own("b").max() == -12
    assert (federation.control() == -6).all()
    # From 6: a's gradient 6 - 6 = 0 twice, so it stays. b's -10 + 6 = -4 leads to 8, then
    # -8 + 6 = -2 to 9. So x = 7.5, c_a = 0 + 6 + 0 = 6, c_b = -12 + 6 - 3 = -9 and c = -1.5.
    after = federation.run(initial=adapter_at(6.0), first_round=2, num_rounds=2)
    assert entries(after) == {7.5}
    assert (federation.own("a") == 6).all()
    assert (federation.own("b") == -9).all()
    assert (federation.control() == -1.5).all()
    assert federation.strategy.accepted_rounds == {"a": 2, "b": 2}


def test_a_part_of_the_cohort_moves_c_by_its_share_and_x_by_the_server_rate(tmp_path: Path) -> None:
    federation = Federation(
        tmp_path,
        dict.fromkeys("abcd", 16.0),
        local_steps=1,
        server_learning_rate=0.5,
    )
    # One half step of one client in four: y = 8, half of it is x = 4; c_i = -16, c = -16 / 4.
    assert entries(federation.run(cohort_size=1)) == {4.0}
    assert (federation.control() == -4).all()


def test_the_kl_baseline_of_a_round_is_sent_as_well(tmp_path: Path) -> None:
    federation = Federation(tmp_path, {"a": 0.0, "b": 16.0}, local_steps=1)
    federation.run(num_rounds=2, kl_baseline=lambda adapter: float(adapter[KEY].max()))
    # One half step from 0 each: 0 and 8, so x = 4.
    assert federation.clients.baselines == [0.0, 4.0]


TARGETS = {"a": -3.0, "b": 1.0, "c": 2.0, "d": 7.0}
CURVATURES = {"a": 2.0, "b": 0.5, "c": 1.0, "d": 0.25}
OPTIMUM = sum(CURVATURES[c] * TARGETS[c] for c in TARGETS) / sum(CURVATURES.values())


@pytest.mark.parametrize("cohort_size", [4, 2])
def test_it_reaches_the_optimum_where_averaging_stalls(cohort_size: int, tmp_path: Path) -> None:
    federation = Federation(tmp_path, TARGETS, local_steps=10, curvatures=CURVATURES)
    chosen: dict[str, Any] = {
        "num_rounds": 300,
        "cohort_size": cohort_size,
        "learning_rate": lambda _: 0.1,
    }
    found = federation.run(**chosen)
    torch.testing.assert_close(found, adapter_at(OPTIMUM), rtol=0, atol=1e-4)
    # At the optimum each control variate is the client's own gradient, and their sum is 0.
    for client, target in TARGETS.items():
        np.testing.assert_allclose(
            federation.own(client), CURVATURES[client] * (OPTIMUM - target), atol=1e-3
        )
    np.testing.assert_allclose(federation.control(), 0, atol=1e-3)
    last: list[float] = []
    federate(
        trainer=QuadraticClients(TARGETS, local_steps=10, curvatures=CURVATURES),
        clients=list(TARGETS),
        initial=adapter_at(0.0),
        seed=0,
        on_round=lambda record: last.append(record.adapter[KEY][0, 0].item()),
        **chosen,
    )
    assert max(abs(value - OPTIMUM) for value in last[-20:]) > 0.3


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    lost=st.lists(st.sets(st.sampled_from("abcd"), max_size=3), min_size=6, max_size=6),
    crashes=st.sets(st.integers(1, 6)),
)
def test_c_is_the_mean_of_what_the_server_counts_on_whatever_is_lost(
    lost: list[set[str]], crashes: set[int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    federation = Federation(
        tmp_path_factory.mktemp("run"), TARGETS, local_steps=3, curvatures=CURVATURES
    )

    class Lossy(LocalGrid):
        """Loses replies after the clients have moved on."""

        round_num = 0

        def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
            away = {self.node_ids[client] for client in lost[self.round_num - 1]}
            return [
                reply
                for reply in super().pull_messages(message_ids)
                if reply.metadata.message_type != MessageType.TRAIN
                or reply.metadata.src_node_id not in away
            ]

    app = CohortApp(
        federation.clients,
        weighting="uniform",
        report_private_metrics=False,
        controls=federation.controls,
    )
    adapter, uninterrupted = adapter_at(0.0), 0
    for round_num in range(1, 7):
        grid = Lossy(app, list(TARGETS))
        grid.round_num = round_num
        how: dict[str, Any] = {
            "grid": grid,
            "initial": adapter,
            "first_round": round_num,
            "num_rounds": round_num,
            "learning_rate": lambda round_num: 0.4 / round_num,
        }
        before = federation.strategy.state_dict()
        after = federation.run(**how)
        if round_num in crashes:
            # The server dies before it notes the round, and a new one runs it again.
            federation.strategy = federation.fresh()
            federation.strategy.load_state_dict(before, records.to_record(adapter))
            again = federation.run(**how)
            torch.testing.assert_close(again, after, rtol=0, atol=0)
        adapter = after
        uninterrupted += 1
        mean = np.mean([federation.own(client) for client in TARGETS], axis=0)
        np.testing.assert_allclose(federation.control(), mean, atol=1e-5)
    assert uninterrupted == 6


def test_only_the_adapter_comes_back_and_the_control_counts_as_sent(tmp_path: Path) -> None:
    federation = Federation(tmp_path, {"a": 0.0, "b": 16.0}, local_steps=2)
    app = CohortApp(
        federation.clients,
        weighting="uniform",
        report_private_metrics=False,
        controls=federation.controls,
    )
    messages: list[Message] = []
    seen: list[RoundRecord] = []
    grid = LocalGrid(app, ["a", "b"], on_message=messages.append)
    federation.run(grid=grid, on_round=seen.append)
    trains = [m for m in messages if m.metadata.message_type == MessageType.TRAIN]
    down, up = trains[:2], trains[2:]
    assert {tuple(sorted(m.content)) for m in down} == {("arrays", "config", "control")}
    assert {tuple(sorted(m.content)) for m in up} == {("arrays", "metrics")}
    assert {
        name for m in down for name in m.content.config_records["config"]
    } == {"round_num", "learning_rate", "accepted_round"}  # fmt: skip
    arrays = sum(m.content.array_records["arrays"].count_bytes() for m in down)
    assert seen[0].bytes_down > 2 * arrays > 2 * seen[0].bytes_up - 200


def test_a_client_whose_control_variate_is_missing_fails_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    federation = Federation(tmp_path, {"a": 0.0, "b": 16.0}, local_steps=2)
    state = federation.strategy.state_dict() | {"accepted_rounds": np.array([0, 7])}
    federation.strategy.load_state_dict(state, records.to_record(adapter_at(0.0)))
    seen: list[RoundRecord] = []
    federation.run(on_round=seen.append)
    assert seen[0].failed == {"b": "client b raised FederationError"}
    assert "'b' must have its control variate of round 7, has those of rounds []" in caplog.text


def test_a_client_without_a_store_says_so(caplog: pytest.LogCaptureFixture) -> None:
    strategy = make_strategy(
        "scaffold", {"server_learning_rate": 1.0}, clients=["a"], local_steps=1
    )
    with pytest.raises(FederationError, match="0 did; failed are a"):
        federate(
            trainer=QuadraticClients({"a": 1.0}),
            clients=["a"],
            initial=adapter_at(0.0),
            num_rounds=1,
            cohort_size=1,
            seed=0,
            learning_rate=lambda _: 0.5,
            strategy=strategy,
        )
    assert "give both sides the same mode.strategy" in caplog.text


def test_it_needs_to_know_who_a_node_is() -> None:
    grid = cohort_grid(["a"])
    strategy = make_strategy(
        "scaffold", {"server_learning_rate": 1.0}, clients=["a"], local_steps=1
    )
    with pytest.raises(TypeError, match="needs a CohortGrid"):
        strategy.configure_train(
            1,
            records.to_record(adapter_at(0.0)),
            records.instruction_config(1, 0.1),
            grid._grid,
        )


def test_a_state_of_other_clients_is_refused(tmp_path: Path) -> None:
    federation = Federation(tmp_path, {"a": 0.0, "b": 16.0}, local_steps=2)
    with pytest.raises(ValueError, match="accepted_rounds of 2 clients, got 3"):
        federation.strategy.load_state_dict(
            {"accepted_rounds": np.zeros(3, np.int64)}, records.to_record(adapter_at(0.0))
        )


def test_what_a_message_without_a_control_asks_for_is_not_corrected(tmp_path: Path) -> None:
    federation = Federation(tmp_path, {"p1": 8.0}, local_steps=1)
    content = RecordDict(
        {
            records.ARRAYS: records.to_record(adapter_at(0.0)),
            records.CONFIG: records.instruction_config(1, 0.5),
        }
    )
    app = CohortApp(
        federation.clients,
        weighting="uniform",
        report_private_metrics=False,
        controls=federation.controls,
    )
    context = Context(RUN_ID, 1, {"client-id": "p1"}, RecordDict(), {})
    (reply,) = app.answer([Message(content, 1, MessageType.TRAIN)], [context])
    assert entries(records.to_adapter(reply.content.array_records["arrays"])) == {4.0}
    assert federation.clients.corrections == {}
