"""SCAFFOLD by hand, against drift, and with updates that are lost."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Message, MessageType
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helpers.one_process import quadratic_rounds
from helpers.quadratic_clients import QuadraticClients, adapter_at, entries
from pkgllm.federation.algorithms.fedavg import FedAvg
from pkgllm.federation.algorithms.scaffold import Scaffold
from pkgllm.federation.client_state import ClientStates
from pkgllm.federation.rounds import RoundRecord
from pkgllm.lm.adapter import AdapterState

KEY = "layer.lora_A"


class Federation:
    """Clients on quadratics, their states, and a server that goes on from its last round."""

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
        self.states = ClientStates(folder)
        self.algorithm = Scaffold(server_learning_rate=server_learning_rate)
        self.records: list[RoundRecord] = []

    def run(self, **changes: Any) -> AdapterState:
        """Run one more round, or more with ``num_rounds``."""
        done = len(self.records)
        start: dict[str, Any] = {"first_round": done + 1, "num_rounds": done + 1}
        if self.records:
            start |= {"initial": self.records[-1].adapter, "state": self.records[-1].state}
        return quadratic_rounds(
            self.clients,
            **{
                "algorithm": self.algorithm,
                "states": self.states,
                "on_round": self.records.append,
                **start,
                **changes,
            },
        )

    def accepted(self) -> dict[str, int]:
        """The last round in which each client's update was averaged."""
        rounds = self.records[-1].state["accepted_rounds"].tolist()
        return dict(zip(sorted(self.clients.targets), rounds, strict=True))

    def control(self) -> np.ndarray:
        """The server's mean control variate."""
        return np.asarray(self.records[-1].state[f"control/{KEY}"].numpy())

    def own(self, client: str) -> np.ndarray:
        """What the server counts on of a client."""
        accepted = self.accepted()[client]
        if not accepted:
            return np.zeros((2, 3), np.float32)
        return np.asarray(self.states.read(client, accepted)[KEY].numpy())


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
    assert entries(federation.run()) == {7.5}
    assert (federation.own("a") == 6).all()
    assert (federation.own("b") == -9).all()
    assert (federation.control() == -1.5).all()
    assert federation.accepted() == {"a": 2, "b": 2}


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


@pytest.mark.slow
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
    averaging: list[RoundRecord] = []
    quadratic_rounds(federation.clients, algorithm=FedAvg(), on_round=averaging.append, **chosen)
    last = [record.adapter[KEY][0, 0].item() for record in averaging[-20:]]
    assert max(abs(value - OPTIMUM) for value in last) > 0.3


@pytest.mark.slow
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

    for round_num in range(1, 7):
        how: dict[str, Any] = {"lost": lost[round_num - 1], "learning_rate": lambda r: 0.4 / r}
        after = federation.run(**how)
        if round_num in crashes:
            # The server dies before it notes the round, and a new one runs it again.
            federation.records.pop()
            again = federation.run(**how)
            torch.testing.assert_close(again, after, rtol=0, atol=0)
        mean = np.mean([federation.own(client) for client in TARGETS], axis=0)
        np.testing.assert_allclose(federation.control(), mean, atol=1e-5)
    assert len(federation.records) == 6


def test_only_the_adapter_comes_back_and_the_control_counts_as_sent(tmp_path: Path) -> None:
    federation = Federation(tmp_path, {"a": 0.0, "b": 16.0}, local_steps=2)
    messages: list[Message] = []
    federation.run(on_message=messages.append)
    trains = [m for m in messages if m.metadata.message_type == MessageType.TRAIN]
    down, up = trains[:2], trains[2:]
    assert {tuple(sorted(m.content)) for m in down} == {("arrays", "config", "control")}
    assert {tuple(sorted(m.content)) for m in up} == {("arrays", "metrics")}
    assert {name for m in down for name in m.content.config_records["config"]} == {
        *("round_num", "server-round", "learning_rate", "accepted_round")
    }
    arrays = sum(m.content.array_records["arrays"].count_bytes() for m in down)
    (record,) = federation.records
    assert record.bytes_down > 2 * arrays > 2 * record.bytes_up - 200


def test_a_client_whose_control_variate_is_missing_fails_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    federation = Federation(tmp_path, {"a": 0.0, "b": 16.0}, local_steps=2)
    federation.run()
    state = {**federation.records[0].state, "accepted_rounds": torch.tensor([1, 7])}
    federation.run(state=state)
    assert federation.records[1].failed == {"b": "client b raised FederationError"}
    assert "client 'b' must have its state of round 7, has those of rounds [1]" in caplog.text


def test_a_control_variate_of_another_adapter_is_refused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    federation = Federation(tmp_path, {"a": 0.0, "b": 16.0}, local_steps=2)
    federation.run()
    federation.states.write("b", {KEY: torch.zeros(1)}, round_num=1, accepted_round=0)
    federation.run()
    assert list(federation.records[1].failed) == ["b"]
    assert "must have the keys and shapes of the adapter, has others" in caplog.text
