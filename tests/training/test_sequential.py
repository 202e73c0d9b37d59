from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM

from helpers.tiny_groups import Ids, a_group, a_policy, log_probability, stir
from pkgllm.errors import FederationError, ModelError
from pkgllm.lm.adapter import AdapterState, adapter_state, attach_adapter, update_norm
from pkgllm.lm.base_model import BaseModel
from pkgllm.objectives.dpo import Dpo
from pkgllm.objectives.kto import Kto
from pkgllm.objectives.objective import Objective
from pkgllm.objectives.sft import Sft
from pkgllm.prompts.groups import Group
from pkgllm.training.batches import draw_batches
from pkgllm.training.local import LocalSteps, TrainedClient
from pkgllm.training.reference import ReferenceColumn
from pkgllm.training.sequential import SequentialTrainer, reference_scorer

SEED = 3
BETA = 0.7
SENT = 1.75
"""The KL baseline of the round, where the objective takes one."""
GROUPS = (
    a_group((5, 9, 11, 40), [(20, 21, 2), (60, 2)], [(22, 2), (23, 24, 2)], ((50, 2), (54, 2))),
    a_group((6, 8), [(90, 91, 2)], [(50, 51, 52, 2), (53, 2)], ((20, 21, 2),)),
    a_group((30, 31, 32, 33), [(34, 2)], [(70, 71, 2)], ((90, 91, 2), (53, 2))),
)

COHORT: Mapping[str, Sequence[Group]] = {"p1": GROUPS, "p2": GROUPS[:1], "p3": GROUPS[1:]}


def some_steps(**changes: Any) -> LocalSteps:
    return LocalSteps(**({"local_steps": 2, "groups_per_step": 2} | changes))


def make_trainer(
    policy: PeftModel,
    objective: Objective,
    groups: Mapping[str, Sequence[Group]] | None = None,
    *,
    steps: LocalSteps | None = None,
) -> SequentialTrainer:
    return SequentialTrainer(
        policy,
        groups or {"p1": GROUPS},
        objective,
        ReferenceColumn(reference_scorer(policy)),
        steps=steps or some_steps(),
        seed=SEED,
    )


def train(
    trainer: SequentialTrainer,
    state: AdapterState,
    *,
    round_num: int = 1,
    learning_rate: float,
    kl_baseline: float | None = None,
) -> TrainedClient:
    """Train the one client, who may not fail."""
    done = trainer(
        {"p1": state},
        round_num=round_num,
        learning_rate=learning_rate,
        kl_baseline=kl_baseline,
    )["p1"]
    assert isinstance(done, TrainedClient)
    return done


Ratio = Callable[[Ids, Ids], torch.Tensor]


# With the seeds above the baseline is 0 in the first step and positive in the second.
def kto_by_hand(batch: Sequence[Group], policy: Ratio, ratio: Ratio) -> torch.Tensor:
    others = [ratio(g.prompt.token_ids, c.token_ids).detach() for g in batch for c in g.mismatched]
    baseline = max(sum(others) / len(others), torch.tensor(0.0))
    return kto_from(baseline, batch, policy, ratio)


def public_kto_by_hand(batch: Sequence[Group], policy: Ratio, ratio: Ratio) -> torch.Tensor:
    return kto_from(SENT, batch, policy, ratio)


def kto_from(
    baseline: torch.Tensor | float, batch: Sequence[Group], policy: Ratio, ratio: Ratio
) -> torch.Tensor:
    total = torch.tensor(0.0)
    for group in batch:
        for c in group.completions:
            advantage = BETA * (ratio(group.prompt.token_ids, c.token_ids) - baseline)
            each = (
                1.3 * (1 - torch.sigmoid(advantage))
                if c.desirable
                else 0.6 * (1 - torch.sigmoid(-advantage))
            )
            total = total + each / len(group.completions) / len(batch)
    return total + 0.25 * sft_by_hand(batch, policy, ratio)


def dpo_by_hand(batch: Sequence[Group], policy: Ratio, ratio: Ratio) -> torch.Tensor:
    total = torch.tensor(0.0)
    for group in batch:
        prompt = group.prompt.token_ids
        pairs = [
            BETA * (ratio(prompt, winner.token_ids) - ratio(prompt, loser.token_ids))
            for winner in group.completions
            for loser in group.completions
            if winner.desirable and not loser.desirable
        ]
        total = total - torch.stack(pairs).sigmoid().log().mean() / len(batch)
    return total


def sft_by_hand(batch: Sequence[Group], policy: Ratio, ratio: Ratio) -> torch.Tensor:
    total = torch.tensor(0.0)
    for group in batch:
        wanted = [
            policy(group.prompt.token_ids, c.token_ids) for c in group.completions if c.desirable
        ]
        total = total - torch.stack(wanted).mean() / len(batch)
    return total


def plain_loop(
    folder: Path,
    start: Mapping[str, torch.Tensor],
    batches: Sequence[Sequence[Group]],
    loss_by_hand: Callable[[Sequence[Group], Ratio, Ratio], torch.Tensor],
    make_optimizer: Callable[[list[torch.Tensor]], torch.optim.Optimizer],
    max_grad_norm: float,
) -> tuple[AdapterState, float]:
    """What anybody would write with PEFT and torch alone: one completion at a time."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    config = LoraConfig(r=2, lora_alpha=4, target_modules="all-linear", task_type="CAUSAL_LM")
    plain = get_peft_model(model, config)
    assert isinstance(plain, PeftModel)
    by_name = {n.replace(".default", ""): p for n, p in plain.named_parameters() if p.requires_grad}
    assert by_name.keys() == start.keys()
    for name, parameter in by_name.items():
        parameter.data.copy_(start[name])

    def policy(prompt: Ids, completion: Ids) -> torch.Tensor:
        return log_probability(plain, prompt, completion)

    def ratio(prompt: Ids, completion: Ids) -> torch.Tensor:
        with torch.no_grad(), plain.disable_adapter():
            reference = log_probability(plain, prompt, completion)
        return policy(prompt, completion) - reference

    optimizer = make_optimizer(list(by_name.values()))
    losses = []
    for batch in batches:
        optimizer.zero_grad()
        loss = loss_by_hand(batch, policy, ratio)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(by_name.values(), max_grad_norm)
        optimizer.step()
        losses.append(loss.item())
    return {name: p.detach() for name, p in by_name.items()}, sum(losses) / len(losses)


@pytest.mark.slow
@pytest.mark.parametrize(("optimizer", "learning_rate"), [("adamw", 1e-3), ("sgd", 0.5)])
@pytest.mark.parametrize(
    ("objective", "by_hand"),
    [
        (
            Kto(beta=BETA, desirable_weight=1.3, undesirable_weight=0.6, nll_weight=0.25),
            kto_by_hand,
        ),
        (
            Kto(
                beta=BETA,
                desirable_weight=1.3,
                undesirable_weight=0.6,
                nll_weight=0.25,
                kl_baseline="public",
            ),
            public_kto_by_hand,
        ),
        (Dpo(beta=BETA, nll_weight=0), dpo_by_hand),
        (Sft(), sft_by_hand),
    ],
    ids=["kto", "public kto", "dpo", "sft"],
)
def test_equals_a_plain_loop_without_packing(
    tiny_base: BaseModel,
    tiny_base_folder: Path,
    objective: Objective,
    by_hand: Callable[[Sequence[Group], Ratio, Ratio], torch.Tensor],
    optimizer: str,
    learning_rate: float,
) -> None:
    policy = a_policy(tiny_base)
    start = adapter_state(policy)
    # Two of three groups, then the one that is left with one of the next pass.
    batches = list(draw_batches(GROUPS, steps=some_steps(), seed=SEED, client="p1", round_num=7))
    trainer = make_trainer(
        policy, objective, steps=some_steps(optimizer=optimizer, weight_decay=0.01)
    )
    sent = SENT if objective.takes_baseline else None
    trained = train(trainer, start, round_num=7, learning_rate=learning_rate, kl_baseline=sent)
    torch_optimizer = {"adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}[optimizer]
    expected, loss = plain_loop(
        tiny_base_folder,
        start,
        batches,
        by_hand,
        lambda parameters: torch_optimizer(parameters, lr=learning_rate, weight_decay=0.01),
        max_grad_norm=1.0,
    )
    torch.testing.assert_close(trained.adapter, expected, atol=1e-5, rtol=0)
    assert trained.loss == pytest.approx(loss, rel=1e-5)
    assert trained.num_groups == 3
    # Far enough from the start that standing still would be noticed.
    assert max((expected[key] - start[key]).abs().max().item() for key in start) > 1e-3


def test_the_call_decides_and_nothing_that_was_trained_before(tiny_base: BaseModel) -> None:
    policy = attach_adapter(
        tiny_base.model, lora_rank=2, lora_alpha=4, target_modules="all-linear", seed=0
    )
    start = adapter_state(policy)
    objective = Dpo(beta=BETA, nll_weight=0)
    trainer = make_trainer(policy, objective)
    first = train(trainer, start, learning_rate=1e-2)
    train(trainer, first.adapter, round_num=2, learning_rate=1e-1)
    stir(policy, seed=5)
    again = train(trainer, start, learning_rate=1e-2)
    assert again.loss == first.loss
    assert all(torch.equal(again.adapter[key], first.adapter[key]) for key in start)
    other_round = train(trainer, start, round_num=2, learning_rate=1e-2)
    assert any(not torch.equal(other_round.adapter[key], first.adapter[key]) for key in start)
    # What was returned is the caller's own.
    assert all(not value.requires_grad for value in first.adapter.values())


def test_a_long_gradient_is_cut_to_its_longest(tiny_base: BaseModel) -> None:
    policy = a_policy(tiny_base)
    start = adapter_state(policy)
    steps = some_steps(optimizer="sgd", local_steps=1, max_grad_norm=0.01)
    trained = train(make_trainer(policy, Sft(), steps=steps), start, learning_rate=0.5)
    # Plain SGD goes learning_rate times the gradient: 0.5 * 0.01.
    assert update_norm(start, trained.adapter) == pytest.approx(0.005, rel=1e-3)


def test_the_base_model_stays_frozen(tiny_base: BaseModel) -> None:
    policy = a_policy(tiny_base)
    before = {n: p.clone() for n, p in policy.named_parameters() if "lora_" not in n}
    trainer = make_trainer(policy, Sft())
    train(trainer, adapter_state(policy), learning_rate=1.0)
    after = dict(policy.named_parameters())
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_a_frozen_factor_stays_frozen(tiny_base: BaseModel) -> None:
    policy = attach_adapter(
        tiny_base.model,
        lora_rank=2,
        lora_alpha=4,
        target_modules="all-linear",
        seed=0,
        freeze_a=True,
    )
    start = adapter_state(policy)
    # The second client comes after the adapter was switched off and on for the reference.
    found = make_trainer(policy, Dpo(beta=BETA, nll_weight=0), COHORT)(
        {"p1": start, "p2": start}, round_num=1, learning_rate=1e-2
    )
    for done in found.values():
        assert isinstance(done, TrainedClient)
        for key in start:
            assert torch.equal(done.adapter[key], start[key]) == ("lora_A" in key)
    for name, parameter in policy.named_parameters():
        assert parameter.requires_grad == ("lora_B" in name)


def test_training_lowers_the_loss(tiny_base: BaseModel) -> None:
    policy = a_policy(tiny_base)
    trainer = make_trainer(policy, Sft(), steps=some_steps(local_steps=8, groups_per_step=3))
    first = train(trainer, adapter_state(policy), learning_rate=1e-2)
    second = train(trainer, first.adapter, round_num=2, learning_rate=1e-2)
    assert second.loss < first.loss


def test_a_cohort_trains_each_client_as_if_alone(tiny_base: BaseModel) -> None:
    policy = a_policy(tiny_base)
    objective = Dpo(beta=BETA, nll_weight=0)
    one = adapter_state(policy)
    stir(policy, seed=5)
    adapters = {"p3": one, "p1": adapter_state(policy), "p2": one}
    together = make_trainer(policy, objective, COHORT)(adapters, round_num=2, learning_rate=1e-2)
    assert list(together) == list(adapters)
    for client, start in adapters.items():
        alone = make_trainer(policy, objective, COHORT)(
            {client: start}, round_num=2, learning_rate=1e-2
        )[client]
        found = together[client]
        assert isinstance(alone, TrainedClient)
        assert isinstance(found, TrainedClient)
        assert found.num_groups == alone.num_groups == len(COHORT[client])
        assert found.loss == alone.loss
        assert all(torch.equal(found.adapter[key], alone.adapter[key]) for key in start)


def test_a_client_that_fails_does_so_alone(tiny_base: BaseModel) -> None:
    policy = a_policy(tiny_base)
    start = adapter_state(policy)
    objective = Kto(beta=BETA, desirable_weight=1, undesirable_weight=1, nll_weight=0)
    without_others = replace(GROUPS[0], mismatched=())
    spoiled = {key: torch.full_like(value, torch.nan) for key, value in start.items()}
    adapters = {"p1": start, "spoiled": spoiled, "lonely": start, "foreign": {}, "p2": start}
    groups = {
        **COHORT,
        "spoiled": GROUPS,
        "lonely": (without_others,),
        "foreign": GROUPS,
    }
    found = make_trainer(policy, objective, groups)(adapters, round_num=4, learning_rate=1e-2)
    assert list(found) == list(adapters)
    healthy = make_trainer(policy, objective, COHORT)(
        {"p1": start, "p2": start}, round_num=4, learning_rate=1e-2
    )
    for client, expected in healthy.items():
        done = found[client]
        assert isinstance(done, TrainedClient)
        assert isinstance(expected, TrainedClient)
        assert all(torch.equal(done.adapter[key], expected.adapter[key]) for key in start)
    assert isinstance(found["lonely"], ValueError)
    assert "at least one mismatched pair" in str(found["lonely"])
    assert isinstance(found["foreign"], ModelError)
    assert isinstance(found["spoiled"], FederationError)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_names_client_and_round(
    tiny_base: BaseModel, value: float
) -> None:
    policy = a_policy(tiny_base)
    start = adapter_state(policy)
    next(iter(start.values())).fill_(value)
    trainer = make_trainer(policy, Sft())
    found = trainer({"p1": start}, round_num=4, learning_rate=1e-3)["p1"]
    assert isinstance(found, FederationError)
    assert str(found) == (
        "client 'p1', round 4: the loss must be finite, got nan; lower training.learning_rate"
    )
