import math
import random
import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel

from helpers.tiny_cohorts import (
    SEED,
    assert_close,
    largest_gap,
    own_adapters,
    sequential_trainer,
    some_steps,
    train,
)
from helpers.tiny_groups import Ids, a_group
from pkgllm.errors import ConfigError, FederationError, ModelError
from pkgllm.lm.adapter import AdapterState, attach_adapter
from pkgllm.lm.base_model import BaseModel
from pkgllm.objectives.apo_zero import ApoZero
from pkgllm.objectives.dpo import Dpo
from pkgllm.objectives.kto import Kto
from pkgllm.objectives.objective import Objective
from pkgllm.objectives.sdpo import Sdpo
from pkgllm.objectives.sft import Sft
from pkgllm.prompts.groups import Group
from pkgllm.training.local import LocalSteps, TrainedClient
from pkgllm.training.trl_engine import TrlTrainer, check_trl, rows_of


def even_groups(seed: int) -> tuple[Group, ...]:
    """Groups with two desirable and two undesirable completions each."""
    generator = np.random.default_rng(seed)

    def ids(longest: int) -> Ids:
        return tuple(generator.integers(3, 250, generator.integers(1, longest + 1)).tolist())

    return tuple(
        a_group(
            ids(20),
            [ids(5) for _ in range(2)],
            [ids(5) for _ in range(2)],
            tuple(ids(5) for _ in range(4)),
        )
        for _ in range(4)
    )


GROUPS = {"p1": even_groups(1), "p2": even_groups(2)}


@pytest.fixture
def policy(tiny_base: BaseModel) -> PeftModel:
    return attach_adapter(
        tiny_base.model, lora_rank=4, lora_alpha=8, target_modules="all-linear", seed=0
    )


@pytest.fixture
def adapters(policy: PeftModel) -> Mapping[str, AdapterState]:
    return own_adapters(policy, sorted(GROUPS))


def trl_trainer(
    policy: PeftModel,
    base: BaseModel,
    objective: Objective,
    groups: Mapping[str, tuple[Group, ...]] = GROUPS,
    steps: LocalSteps | None = None,
) -> TrlTrainer:
    return TrlTrainer(
        policy, groups, objective, base.tokenizer, steps=steps or some_steps(), seed=SEED
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("objective", "optimizer", "freeze_a"),
    [
        (Kto(beta=0.4, desirable_weight=1.3, undesirable_weight=0.6), "adamw", False),
        (ApoZero(beta=0.4, desirable_weight=1.3), "sgd", True),
        (Dpo(beta=0.4), "adamw", True),
        (Dpo(beta=0.4, pairs="matched"), "sgd", False),
        (Sft(), "adamw", False),
    ],
    ids=lambda part: getattr(part, "name", str(part)),
)
def test_trains_as_the_sequential_engine_does(
    tiny_base: BaseModel, objective: Objective, optimizer: str, freeze_a: bool
) -> None:
    policy = attach_adapter(
        tiny_base.model,
        lora_rank=4,
        lora_alpha=8,
        target_modules="all-linear",
        seed=0,
        freeze_a=freeze_a,
    )
    adapters = own_adapters(policy, sorted(GROUPS))
    correction = {key: torch.full_like(value, 0.01) for key, value in adapters["p1"].items()}
    terms: dict[str, Any] = {"proximal_mu": 0.3, "corrections": {"p2": correction}}
    rate = 1e-3 if optimizer == "adamw" else 0.1
    for local_steps in (1, 3):
        steps = some_steps(optimizer=optimizer, weight_decay=0.1, local_steps=local_steps)
        expected = train(
            sequential_trainer(policy, objective, GROUPS, steps=steps),
            adapters,
            learning_rate=rate,
            **terms,
        )
        found = train(
            trl_trainer(policy, tiny_base, objective, steps=steps),
            adapters,
            learning_rate=rate,
            **terms,
        )
        assert_close(found, expected, atol=5e-5)
    assert min(largest_gap(adapters[c], done.adapter) for c, done in expected.items()) > 1e-3


@pytest.mark.slow
def test_the_reference_is_the_base_model_and_not_what_was_received(
    policy: PeftModel, tiny_base: BaseModel, adapters: Mapping[str, AdapterState]
) -> None:
    steps = some_steps(local_steps=1)
    for done in train(trl_trainer(policy, tiny_base, Dpo(), steps=steps), adapters).values():
        # Against itself a policy has the loss log 2 for every pair.
        assert abs(done.loss - math.log(2)) > 0.01


@pytest.mark.slow
def test_leaves_the_policy_and_the_generators_as_they_were(
    policy: PeftModel, tiny_base: BaseModel, adapters: Mapping[str, AdapterState]
) -> None:
    base = policy.get_base_model()
    before = {name: p.clone() for name, p in policy.named_parameters() if "lora_" not in name}
    trains = {name: p.requires_grad for name, p in policy.named_parameters()}
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()  # type: ignore[index]
    train(trl_trainer(policy, tiny_base, Kto()), adapters)
    assert list(policy.peft_config) == ["default"]
    assert "forward" not in vars(base)
    assert {name: p.requires_grad for name, p in policy.named_parameters()} == trains
    assert all(torch.equal(dict(policy.named_parameters())[n], v) for n, v in before.items())
    assert random.getstate() == states[0]
    assert np.random.get_state()[1].tolist() == states[1]  # type: ignore[index]
    assert torch.equal(torch.get_rng_state(), states[2])


@pytest.mark.slow
def test_reports_to_nobody_and_prints_nothing(
    policy: PeftModel,
    tiny_base: BaseModel,
    adapters: Mapping[str, AdapterState],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def report(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("a report was sent")

    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setattr("trl.trainer.base_trainer.send_telemetry", report)
    monkeypatch.setattr("socket.socket.connect", report)
    train(trl_trainer(policy, tiny_base, Sft()), {"p1": adapters["p1"]})
    assert capsys.readouterr().out == ""


@pytest.mark.slow
def test_a_client_that_fails_does_so_alone(
    policy: PeftModel, tiny_base: BaseModel, adapters: Mapping[str, AdapterState]
) -> None:
    spoiled = {key: torch.full_like(value, torch.nan) for key, value in adapters["p1"].items()}
    groups = {**GROUPS, "spoiled": GROUPS["p1"], "foreign": GROUPS["p1"]}
    asked = {"spoiled": spoiled, "foreign": {}, "p2": adapters["p2"]}
    found = trl_trainer(policy, tiny_base, Sft(), groups)(asked, round_num=4, learning_rate=1e-3)
    assert list(found) == list(asked)
    assert isinstance(found["spoiled"], FederationError)
    assert "client 'spoiled', round 4: the loss must be finite" in str(found["spoiled"])
    assert isinstance(found["foreign"], ModelError)
    alone = train(trl_trainer(policy, tiny_base, Sft()), {"p2": adapters["p2"]}, round_num=4)
    done = found["p2"]
    assert isinstance(done, TrainedClient)
    assert largest_gap(done.adapter, alone["p2"].adapter) == 0


def test_without_a_pair_nothing_is_trained(
    policy: PeftModel, tiny_base: BaseModel, adapters: Mapping[str, AdapterState]
) -> None:
    groups = {"p1": (a_group((5, 6), [(7, 2)], []),)}
    (done,) = train(trl_trainer(policy, tiny_base, Dpo(), groups), {"p1": adapters["p1"]}).values()
    assert (done.loss, largest_gap(done.adapter, adapters["p1"])) == (0.0, 0.0)


def test_token_ids_go_in_as_they_are() -> None:
    group = a_group((5, 6), [(7, 2), (8, 2)], [(9, 2)], ((3, 2), (4, 2)))
    prompt = {"prompt_ids": [5, 6]}

    def rows(objective: Objective) -> list[dict[str, Any]]:
        return rows_of([group], check_trl(objective)[0])

    assert rows(Kto()) == [
        {**prompt, "completion_ids": [7, 2], "label": True, "KL_completion_ids": [3, 2]},
        {**prompt, "completion_ids": [8, 2], "label": True, "KL_completion_ids": [4, 2]},
        {**prompt, "completion_ids": [9, 2], "label": False, "KL_completion_ids": [3, 2]},
    ]
    pairs = [{**prompt, "chosen_ids": [c, 2], "rejected_ids": [9, 2]} for c in (7, 8)]
    assert rows(Dpo()) == pairs
    assert rows(Dpo(pairs="matched")) == pairs[:1]
    assert rows(Sft()) == [
        {"input_ids": [5, 6, c, 2], "labels": [-100, -100, c, 2]} for c in (7, 8)
    ]


@pytest.mark.parametrize(
    "objective",
    [Sdpo(), Kto(kl_baseline="public"), replace(Dpo(), nll_weight=0.5), ApoZero(nll_weight=0.1)],
    ids=lambda objective: objective.name,
)
def test_refuses_what_trl_does_not_have(
    policy: PeftModel, tiny_base: BaseModel, objective: Objective
) -> None:
    with pytest.raises(ConfigError, match="needs an objective that TRL has too, got"):
        trl_trainer(policy, tiny_base, objective)


def test_says_how_to_install_trl(
    policy: PeftModel, tiny_base: BaseModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "trl", None)
    with pytest.raises(ConfigError, match=r"not installed; run pip install 'pkgllm\[trl\]'"):
        trl_trainer(policy, tiny_base, Sft())
