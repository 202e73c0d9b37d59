"""The published example to its end: what a person accepted in a chat is trained on, on the person's
own machine, and nothing but the update leaves it."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from flwr.app import Context, Message, MessageType
from flwr.clientapp import ClientApp

from helpers.command_line import RunCommand
from helpers.private_things import found_in, private_texts
from helpers.tiny_corpus import FILMS, tiny_experiment
from pkgllm.config.schema import Experiment
from pkgllm.federation.algorithms.fedavg import FedAvg
from pkgllm.federation.flower.deployment.folders import write_federation_keys
from pkgllm.federation.flower.grid import LocalGrid
from pkgllm.federation.flower.records import ARRAYS, CLIENT_ID, num_bytes, to_adapter
from pkgllm.federation.flower.transport import FlowerTransport
from pkgllm.federation.rounds import Rounds, run_rounds
from pkgllm.graph.rdf import read_graph
from pkgllm.lm.adapter import AdapterState, adapter_state
from pkgllm.pipeline.build import make_policy
from pkgllm.pipeline.deployment.client_folder import ClientFolder
from pkgllm.pipeline.run_record import load_base
from pkgllm.pipeline.train import build_data, train
from pkgllm.progress import Silent
from pkgllm.prompts.group_store import GroupStore
from pkgllm.prompts.groups import Group

RAIDERS, BENEATH = "735590001", "735590002"
NAMES = {RAIDERS: "Raiders of the Lost Ark (1981)", BENEATH: "What Lies Beneath (2000)", **FILMS}
FORD = "Harrison Ford"
FACTS = {film: {"star": [FORD]} for film in (RAIDERS, BENEATH)}
PERSON, OTHERS = "00", ("01", "02")

# All that a person said counts where nobody is ranked, and a client has at most three groups.
ON_A_DEVICE = (
    "split.test_share=0",
    "split.validation_share=0",
    "training.groups_per_step=3",
)


@pytest.fixture
def config(
    tmp_path: Path,
    tiny_base_folder: Path,
    make_dialogue: Callable[..., dict[str, Any]],
    write_redial: Callable[..., Path],
) -> Experiment:
    """Three people who liked six films each; the person is the one who knows Raiders."""
    films = list(FILMS)
    dialogues = []
    for number, client in enumerate((PERSON, *OTHERS)):
        own = films[6 * number : 6 * number + 6]
        if client == PERSON:
            own[2] = RAIDERS
        names = {film: NAMES[film] for film in own}
        for half in (0, 1):
            said = dict.fromkeys(own[3 * half : 3 * half + 3], "liked")
            dialogues.append(
                make_dialogue(
                    10 * number + half, client, said, names={film: names[film] for film in said}
                )
            )
    data = write_redial(tmp_path / "data", dialogues, NAMES, FACTS)
    return tiny_experiment(
        data, tiny_base_folder, clients={"unseen_share": 0.0}, mode={"rounds": 1}
    )


@dataclass
class Devices:
    """Every person's machine, with an app of its own that read its own folder alone."""

    folders: Path

    def __post_init__(self) -> None:
        self.owners = {p.name: ClientFolder(p, ON_A_DEVICE) for p in sorted(self.folders.iterdir())}
        self.apps = {name: own.make_app(Silent()) for name, own in self.owners.items()}

    @property
    def flower_app(self) -> ClientApp:
        # Who a client is stands in its context.
        return next(iter(self.apps.values())).flower_app

    def answer(self, messages: Sequence[Message], contexts: Sequence[Context]) -> list[Message]:
        return [
            self.apps[str(context.node_config[CLIENT_ID])].flower_app(message, context)
            for message, context in zip(messages, contexts, strict=True)
        ]

    @property
    def groups(self) -> dict[str, tuple[Group, ...]]:
        return {
            name: GroupStore.open(own.private / "groups.arrow")[name]
            for name, own in self.owners.items()
        }


@dataclass
class Round:
    """What went over the wire in one round, and what came of it."""

    messages: list[Message]
    adapter: AdapterState
    nodes: dict[str, int]

    def update(self, client: str) -> Message:
        (found,) = [
            message
            for message in self.messages
            if message.metadata.src_node_id == self.nodes[client]
            and message.metadata.message_type == MessageType.TRAIN
        ]
        return found

    def trained(self, client: str) -> AdapterState:
        return to_adapter(self.update(client).content.array_records[ARRAYS])


def train_round(devices: Devices, start: AdapterState, number: int) -> Round:
    """Federate one round over all devices."""
    messages: list[Message] = []
    clients = sorted(devices.apps)
    grid = LocalGrid(devices, clients, on_message=messages.append)
    adapter = run_rounds(
        FlowerTransport(grid),
        Rounds(
            algorithm=FedAvg(),
            initial=start,
            num_rounds=number,
            cohort_size=len(clients),
            seed=7,
            learning_rate=lambda round_num: 0.02,
            timeout=600,
            first_round=number,
        ),
    )
    return Round(messages, adapter, grid.node_ids)


def liked_in(groups: Sequence[Group]) -> set[str]:
    return {c.item for group in groups for c in group.completions if c.source == "liked"}


@pytest.mark.slow
def test_the_next_round_trains_on_what_was_accepted_and_nothing_but_the_update_leaves(
    config: Experiment, tmp_path: Path, pkgllm: RunCommand
) -> None:
    build_data(config, tmp_path / "built", Silent())
    write_federation_keys(tmp_path / "fed", hosts=(), clients=(), built=tmp_path / "built")
    folders = tmp_path / "fed" / "clients"
    train(config, tmp_path / "run", Silent())
    start = adapter_state(make_policy(config, load_base(config)))
    first = train_round(Devices(folders), start, 1)
    shutil.copytree(folders, tmp_path / "silent")

    graph = folders / PERSON / "graph.jsonld"
    catalogue = graph.with_name("catalogue.json")
    # A model that knows nothing of actors offers all that the person has not seen.
    chat = (
        *("chat", "--pkg", str(graph), "--adapter", str(tmp_path / "run")),
        *("--catalogue", str(catalogue), "--top", str(len(NAMES)), "--yes"),
    )
    done = pkgllm(*chat, "--message", f"I enjoy {FORD}")
    assert done.code == 0, done.err
    assert NAMES[BENEATH] in done.out
    assert f"prefer person {FORD}" in done.out
    done = pkgllm(*chat, "--message", "I watched What Lies Beneath and loved it")
    assert done.code == 0, done.err
    assert read_graph(graph).facts[-1].tail == BENEATH
    assert graph.stat().st_mode & 0o077 == 0

    devices, silent = Devices(folders), Devices(tmp_path / "silent")
    second, without = (train_round(which, first.adapter, 2) for which in (devices, silent))

    # It is asked for in the newest group of the person, and in nobody else's.
    assert BENEATH in liked_in(devices.groups[PERSON][:1])
    assert BENEATH not in liked_in(silent.groups[PERSON])
    for client in OTHERS:
        assert devices.groups[client] == silent.groups[client]
        assert_same(second.trained(client), without.trained(client))
    for other in (without.trained(PERSON), first.adapter):
        assert any(
            not torch.equal(value, other[key]) for key, value in second.trained(PERSON).items()
        )
    assert any(
        not torch.equal(value, without.adapter[key]) for key, value in second.adapter.items()
    )

    # Whoever listens learns no text, and not even how much there is.
    secrets = [*private_texts(NAMES, devices.groups.values()), ("person", FORD.encode())]
    assert found_in(second.messages, secrets) == set()
    for client in (PERSON, *OTHERS):
        update = second.update(client)
        content = update.content
        assert {name: set(record) for name, record in content.items()} == {
            "arrays": set(first.adapter),
            "metrics": {"weight"},
        }
        assert dict(content.metric_records["metrics"]) == {"weight": 1.0}
        shapes = {key: tuple(value.shape) for key, value in second.trained(client).items()}
        assert shapes == {key: tuple(value.shape) for key, value in first.adapter.items()}
    assert num_bytes(second.update(PERSON)) == num_bytes(without.update(PERSON))


def assert_same(one: AdapterState, other: AdapterState) -> None:
    torch.testing.assert_close(one, other, atol=0, rtol=0)
