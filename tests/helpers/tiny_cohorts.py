"""Clients of every make-up, and both engines over one policy."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from peft import PeftModel

from helpers.tiny_groups import Ids, a_group
from helpers.tiny_objectives import at_baseline
from pkgllm.lm.adapter import AdapterState, adapter_state
from pkgllm.lm.lanes.decoder import LaneDecoder
from pkgllm.objectives.apo_zero import ApoZero
from pkgllm.objectives.dpo import Dpo
from pkgllm.objectives.kto import Kto
from pkgllm.objectives.objective import Objective
from pkgllm.objectives.sdpo import Sdpo
from pkgllm.objectives.sft import Sft
from pkgllm.prompts.groups import Group
from pkgllm.training import sequential
from pkgllm.training.cohort import LaneTrainer
from pkgllm.training.lane_passes import reference_scorer
from pkgllm.training.local import CohortTrainer, LocalSteps, TrainedClient
from pkgllm.training.log_probabilities import Branch
from pkgllm.training.reference import ReferenceColumn, ReferenceScore
from pkgllm.training.sequential import SequentialTrainer

SEED = 3
ROOM = 2**30
"""Bytes in which any of the cohorts here fits at once."""

WEIGHTS: dict[str, Any] = {"beta": 0.4, "desirable_weight": 1.3, "undesirable_weight": 0.6}
PUBLIC_KTO = Kto(kl_baseline="public", **WEIGHTS, nll_weight=0.25)
"""Takes the baseline of each round from the server."""
OBJECTIVES: Mapping[str, Objective] = {
    "kto": Kto(**WEIGHTS, nll_weight=0),
    "kto with likelihood": Kto(**WEIGHTS, nll_weight=0.25),
    "apo_zero": ApoZero(**WEIGHTS, nll_weight=0),
    "public kto": at_baseline(PUBLIC_KTO, 2.5),
    "dpo": Dpo(beta=0.4, nll_weight=0),
    "matched dpo with likelihood": Dpo(beta=0.4, nll_weight=0.25, pairs="matched"),
    "sdpo": Sdpo(beta=0.4, nll_weight=0),
    "sdpo with likelihood": Sdpo(beta=0.4, nll_weight=0.25),
    "sft": Sft(),
}


def some_groups(num_groups: int, *, seed: int) -> tuple[Group, ...]:
    """Groups with prompts and completions of many lengths; some want for undesirable ones."""
    generator = np.random.default_rng(seed)

    def ids(longest: int) -> Ids:
        length = generator.integers(1, longest + 1)
        return tuple(int(token) for token in generator.integers(3, 250, length))

    return tuple(
        a_group(
            ids(40),
            [ids(6) for _ in range(generator.integers(1, 4))],
            [ids(6) for _ in range(generator.integers(0, 4))],
            tuple(ids(6) for _ in range(generator.integers(1, 3))),
        )
        for _ in range(num_groups)
    )


UNEQUAL: Mapping[str, tuple[Group, ...]] = {
    f"p{number}": some_groups(number, seed=number) for number in range(1, 6)
}
"""Clients with one to five groups."""


def own_adapters(policy: PeftModel, clients: Sequence[str]) -> dict[str, AdapterState]:
    """An adapter for each client, all away from the base model and from each other."""
    generator = torch.Generator().manual_seed(17)
    return {
        client: {
            key: torch.empty_like(value).normal_(0, 0.2, generator=generator)
            for key, value in adapter_state(policy).items()
        }
        for client in clients
    }


@dataclass
class Tally:
    """Scores, and remembers each prompt and completion that it was asked for."""

    score: ReferenceScore
    asked: list[tuple[Ids, Ids]] = field(default_factory=list)

    def __call__(self, branches: Sequence[Branch]) -> torch.Tensor:
        self.asked += [
            (group.prompt.token_ids, completion.token_ids)
            for group, completions in branches
            for completion in completions
        ]
        return self.score(branches)


def cache(score: ReferenceScore) -> ReferenceColumn:
    return ReferenceColumn(score)


def lane_trainer(
    policy: PeftModel,
    objective: Objective,
    groups: Mapping[str, Sequence[Group]] = UNEQUAL,
    *,
    memory_bytes: int = ROOM,
    reference: ReferenceColumn | None = None,
    steps: LocalSteps | None = None,
) -> LaneTrainer:
    decoder = LaneDecoder(policy)
    return LaneTrainer(
        decoder,
        groups,
        objective,
        cache(reference_scorer(decoder, memory_bytes)) if reference is None else reference,
        steps=steps or some_steps(),
        seed=SEED,
        memory_bytes=memory_bytes,
    )


def sequential_trainer(
    policy: PeftModel,
    objective: Objective,
    groups: Mapping[str, Sequence[Group]] = UNEQUAL,
    *,
    steps: LocalSteps | None = None,
) -> SequentialTrainer:
    return SequentialTrainer(
        policy,
        groups,
        objective,
        cache(sequential.reference_scorer(policy)),
        steps=steps or some_steps(),
        seed=SEED,
    )


def some_steps(**changes: Any) -> LocalSteps:
    return LocalSteps(**({"local_steps": 3, "groups_per_step": 2, "max_grad_norm": 0.5} | changes))


def train(
    trainer: CohortTrainer,
    adapters: Mapping[str, AdapterState],
    *,
    round_num: int = 1,
    learning_rate: float = 1e-3,
    **terms: Any,
) -> dict[str, TrainedClient]:
    """Train clients of whom none may fail."""
    found = trainer(adapters, round_num=round_num, learning_rate=learning_rate, **terms)
    trained = {}
    for client, done in found.items():
        if isinstance(done, Exception):
            raise done
        trained[client] = done
    return trained


def largest_gap(one: AdapterState, other: AdapterState) -> float:
    assert one.keys() == other.keys()
    return max((one[key] - other[key]).abs().max().item() for key in one)


def assert_close(
    found: Mapping[str, TrainedClient], expected: Mapping[str, TrainedClient], *, atol: float = 1e-5
) -> None:
    assert list(found) == list(expected)
    for client, done in expected.items():
        assert abs(found[client].loss - done.loss) <= atol * max(1, abs(done.loss)), client
        gap = largest_gap(found[client].adapter, done.adapter)
        assert gap <= atol, f"{client}: {gap}"
        assert found[client].num_groups == done.num_groups


def assert_same_bits(
    found: Mapping[str, TrainedClient], expected: Mapping[str, TrainedClient]
) -> None:
    assert_close(found, expected, atol=0)


def peak_bytes(action: Callable[[], object]) -> int:
    """The most memory that torch held at once beyond what it held before."""
    cpu = torch.profiler.ProfilerActivity.CPU
    with torch.profiler.profile(activities=[cpu], profile_memory=True) as profile:
        action()
    events: Any = profile.profiler
    changes = [e for e in events.kineto_results.events() if e.name() == "[memory]"]
    held = most = 0
    for change in sorted(changes, key=lambda event: event.start_ns()):
        held += change.nbytes()
        most = max(most, held)
    return most
