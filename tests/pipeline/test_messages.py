"""What leaves a device in real federated training, looked at byte by byte."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from flwr.app import Message

from helpers.one_process import federate
from helpers.private_things import found_in, private_scores, private_texts
from helpers.tiny_corpus import FILMS, tiny_experiment
from pkgllm.errors import FederationError
from pkgllm.lm.adapter import AdapterState, adapter_state, attach_adapter
from pkgllm.lm.base_model import load_base_model
from pkgllm.lm.lanes.decoder import LaneDecoder
from pkgllm.pipeline.build import (
    build_groups,
    make_writer,
    populate,
    read_corpus,
)
from pkgllm.progress import Silent
from pkgllm.prompts.groups import Group
from pkgllm.training.cohort import LaneTrainer
from pkgllm.training.lane_passes import reference_scorer
from pkgllm.training.local import CohortTrainer, LocalSteps, TrainedClient
from pkgllm.training.reference import ReferenceColumn

pytest_plugins = ["helpers.finished_runs"]


class Federation:
    """The parts of a real federated run, put together by hand so that its messages can be read."""

    def __init__(self, data: Path, base_folder: Path, store: Path) -> None:
        config = tiny_experiment(data, base_folder)
        base = load_base_model(str(base_folder), device="cpu")
        population = populate(config, read_corpus(config))
        writer = make_writer(config.prompt, base)
        self.groups = build_groups(config, population, writer, store, Silent())
        self.policy = attach_adapter(
            base.model, lora_rank=2, lora_alpha=8, target_modules="all-linear", seed=0
        )
        decoder = LaneDecoder(self.policy)
        self.reference = ReferenceColumn(reference_scorer(decoder, 2**30))
        self.trainer = LaneTrainer(
            decoder,
            self.groups,
            config.objective,
            self.reference,
            steps=LocalSteps(local_steps=1, groups_per_step=2),
            seed=7,
            memory_bytes=2**30,
        )

    def run(
        self, messages: list[Message], trainer: CohortTrainer | None = None, **more: Any
    ) -> None:
        """Federate, and put every message into the list."""
        federate(
            trainer=trainer or self.trainer,
            clients=sorted(self.groups),
            initial=adapter_state(self.policy),
            num_rounds=2,
            cohort_size=2,
            seed=7,
            learning_rate=lambda round_num: 0.02,
            on_message=messages.append,
            **more,
        )

    def secrets(self) -> Iterator[tuple[str, bytes]]:
        """Everything private, in every form in which it could be carried."""
        yield from private_texts(FILMS, self.groups.values())
        yield from private_scores(self.reference, self.groups.values())


@pytest.fixture
def federation(data: Path, tiny_base_folder: Path, tmp_path: Path) -> Federation:
    return Federation(data, tiny_base_folder, tmp_path / "groups.arrow")


@pytest.mark.slow
def test_no_message_of_real_training_holds_anything_private(federation: Federation) -> None:
    messages: list[Message] = []
    federation.run(messages)
    secrets = list(federation.secrets())
    # Ten clients name themselves; then two clients train in each of two rounds.
    assert len(messages) == 2 * (10 + 2 * 2)
    assert not any(message.has_error() for message in messages)
    assert found_in(messages, secrets) == set()
    metrics = [
        dict(record) for message in messages for record in message.content.metric_records.values()
    ]
    assert metrics == [{"weight": 1.0}] * 4


@pytest.mark.slow
def test_only_a_run_that_says_so_sends_counts_and_losses(federation: Federation) -> None:
    messages: list[Message] = []
    federation.run(messages, report_private_metrics=True)
    assert found_in(messages, list(federation.secrets())) == set()
    records = [r for m in messages for r in m.content.metric_records.values()]
    assert len(records) == 4
    for record in records:
        assert set(record) == {"weight", "num_groups", "loss"}
        assert record["num_groups"] == 3
        assert math.isfinite(record["loss"])  # type: ignore[arg-type]


LEAKS: Mapping[str, Callable[[Federation, Group], tuple[str, torch.Tensor]]] = {
    "title": lambda f, g: (f"liked {FILMS[g.completions[0].item]}", torch.zeros(1)),
    "id": lambda f, g: (f"film {g.completions[0].item}", torch.zeros(1)),
    "prompt": lambda f, g: (g.prompt.text, torch.zeros(1)),
    "prompt tokens as <f4": lambda f, g: ("ids", torch.tensor(g.prompt.token_ids).float()),
    "log-probability as <f4": lambda f, g: (
        "scores",
        f.reference.log_probabilities([(g, g.completions)]),
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("what", LEAKS)
def test_the_search_would_find_what_a_careless_client_sends(
    federation: Federation, what: str
) -> None:
    class Careless:
        """Sends something private as if it were one of the adapter's arrays."""

        def __call__(
            self,
            adapters: Mapping[str, AdapterState],
            *,
            round_num: int,
            learning_rate: float,
            **terms: Any,
        ) -> dict[str, TrainedClient | Exception]:
            trained = federation.trainer(
                adapters, round_num=round_num, learning_rate=learning_rate, **terms
            )
            return {client: self.spoiled(client, done) for client, done in trained.items()}

        def spoiled(self, client: str, done: TrainedClient | Exception) -> TrainedClient:
            assert isinstance(done, TrainedClient)
            key, value = LEAKS[what](federation, federation.groups[client][0])
            return replace(done, adapter={**done.adapter, key: value})

    messages: list[Message] = []
    # The server refuses such an update, but it has left the device by then.
    with pytest.raises(FederationError, match="0 did; failed are"):
        federation.run(messages, Careless())
    assert any(name.startswith(what) for name in found_in(messages, list(federation.secrets())))
