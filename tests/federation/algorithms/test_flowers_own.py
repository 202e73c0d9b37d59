"""Every algorithm that Flower has too, beside Flower's own class, live."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from flwr.app import ArrayRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.serverapp import strategy as flower
from flwr.serverapp.strategy import Strategy

from helpers.algorithm_steps import Server, moved, some_adapter
from helpers.quadratic_clients import adapter_at
from pkgllm.federation.algorithm import Algorithm
from pkgllm.federation.algorithms import ALGORITHMS
from pkgllm.federation.flower import records
from pkgllm.federation.flower.internals import become_server
from pkgllm.federation.messages import Instruction
from pkgllm.lm.adapter import AdapterState

ADAPTIVE = {"server_learning_rate": 0.02, "tau": 0.01}
MOMENTS = {**ADAPTIVE, "beta_1": 0.8, "beta_2": 0.95}
PAIRS: list[tuple[str, dict[str, float], Callable[..., Strategy], dict[str, str]]] = [
    ("fedavg", {}, flower.FedAvg, {}),
    ("fedprox", {"proximal_mu": 0.3}, flower.FedProx, {}),
    ("fedavgm", {"server_learning_rate": 0.7, "server_momentum": 0.6}, flower.FedAvgM, {}),
    ("fedadagrad", ADAPTIVE, flower.FedAdagrad, {"server_learning_rate": "eta"}),
    ("fedyogi", MOMENTS, flower.FedYogi, {"server_learning_rate": "eta"}),
    ("fedadam", MOMENTS, flower.FedAdam, {"server_learning_rate": "eta"}),
    ("fedmedian", {}, flower.FedMedian, {}),
    ("fedtrimmedavg", {"trimmed_share": 0.25}, flower.FedTrimmedAvg, {"trimmed_share": "beta"}),
    ("krum", {"num_malicious": 1}, flower.Krum, {"num_malicious": "num_malicious_nodes"}),
]
EVERYBODY: dict[str, Any] = {
    "fraction_evaluate": 0.0,
    "min_train_nodes": 1,
    "min_available_nodes": 1,
    "weighted_by_key": records.WEIGHT,
}


class Nodes:
    """A grid to which some nodes are connected, none of which is asked."""

    def __init__(self, number: int) -> None:
        self.number = number

    def get_node_ids(self) -> list[int]:
        return list(range(2, 2 + self.number))


def take(
    theirs: Strategy,
    round_num: int,
    adapter: AdapterState,
    updates: list[AdapterState],
    weights: list[float],
) -> tuple[AdapterState, bool, RecordDict]:
    """Take Flower's strategy through a round; say whether it widens, and what it sends."""
    become_server()
    content = records.instruction_content(
        Instruction(adapter=adapter, round_num=round_num, learning_rate=0.1)
    )
    config = content.config_records[records.CONFIG]
    nodes: Any = Nodes(len(updates))
    sent = list(theirs.configure_train(round_num, content.array_records["arrays"], config, nodes))
    replies = [
        Message(
            RecordDict(
                {
                    records.ARRAYS: records.to_record(update),
                    records.METRICS: MetricRecord({records.WEIGHT: weight}),
                }
            ),
            reply_to=Message(RecordDict(), node_id, MessageType.TRAIN),
        )
        for node_id, update, weight in zip(nodes.get_node_ids(), updates, weights, strict=True)
    ]
    arrays, _ = theirs.aggregate_train(round_num, replies)
    assert isinstance(arrays, ArrayRecord)
    widened = any(array.dtype == "float64" for array in arrays.values())
    return records.to_adapter(arrays), widened, sent[0].content


@pytest.mark.parametrize(("name", "settings", "kind", "names"), PAIRS, ids=[p[0] for p in PAIRS])
def test_random_rounds_are_flowers(
    name: str, settings: dict[str, float], kind: Callable[..., Strategy], names: dict[str, str]
) -> None:
    algorithm: Any = ALGORITHMS[name]
    ours: Algorithm = algorithm(**settings)
    theirs = kind(**EVERYBODY, **{names.get(key, key): value for key, value in settings.items()})
    server = Server(ours, some_adapter(0))
    widens = False
    for round_num in range(1, 9):
        before = server.adapter
        updates = [moved(before, 10 * round_num + n, std=0.02) for n in range(5)]
        weights = [1.0] * 5 if ours.equal_weights else [1.0, 2.0, 3.0, 4.0, 5.0]
        expected, widened, sent = take(theirs, round_num, before, updates, weights)
        widens = widens or widened
        after = server.take(updates, weights)
        torch.testing.assert_close(after, expected, rtol=0, atol=1e-6)
        # What Flower's strategy sends is what ours does, so its clients would understand it.
        own = Instruction(
            adapter=before,
            round_num=round_num,
            learning_rate=0.1,
            broadcast=ours.broadcast(server.state),
        )
        assert dict(records.instruction_content(own).config_records["config"]) == dict(
            sent.config_records["config"]
        )
    # So that it is noticed when Flower mends it.
    assert widens == (name == "fedadam")


@pytest.mark.parametrize(
    ("name", "kind", "share", "grown"),
    [
        # beta_1 of .9 takes a tenth of the first step, which FedAdam's correction makes .74 of it.
        ("fedadagrad", flower.FedAdagrad, 1.0, 100),
        ("fedyogi", flower.FedYogi, 0.1, 10),
        ("fedadam", flower.FedAdam, 0.0742, 100),
    ],
)
def test_the_defaults_take_small_steps_as_averaging_does_and_flowers_many_times_that(
    name: str, kind: Callable[..., Strategy], share: float, grown: float
) -> None:
    algorithm: Any = ALGORITHMS[name]
    small = adapter_at(1e-5)
    ours = Server(algorithm(), adapter_at(0.0)).take([small])["layer.lora_A"].max().item()
    assert ours == pytest.approx(share * 1e-5, rel=0.03)
    theirs, _, _ = take(kind(**EVERYBODY), 1, adapter_at(0.0), [small], [1.0])
    assert theirs["layer.lora_A"].max().item() / ours == pytest.approx(grown, rel=0.01)
