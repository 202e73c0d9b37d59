import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import PeftModel

from helpers.tiny_cohorts import (
    OBJECTIVES,
    PUBLIC_KTO,
    ROOM,
    SEED,
    UNEQUAL,
    WEIGHTS,
    Tally,
    assert_close,
    assert_same_bits,
    cache,
    lane_trainer,
    largest_gap,
    own_adapters,
    peak_bytes,
    sequential_trainer,
    some_groups,
    some_steps,
    train,
)
from helpers.tiny_decoders import tiny_decoder, with_random_adapter
from helpers.tiny_groups import a_policy, stir
from pkgllm.errors import FederationError, ModelError
from pkgllm.lm.adapter import AdapterState, adapter_state, attach_adapter
from pkgllm.lm.base_model import BaseModel
from pkgllm.lm.lanes.decoder import LaneDecoder
from pkgllm.objectives.apo_zero import ApoZero
from pkgllm.objectives.objective import Objective
from pkgllm.prompts.groups import Group
from pkgllm.training import lane_passes, sequential
from pkgllm.training.batches import branches_of, draw_batches
from pkgllm.training.cohort import Lane
from pkgllm.training.lane_memory import PassCost
from pkgllm.training.lane_passes import reference_scorer
from pkgllm.training.local import CohortTrainer, LocalSteps, TrainedClient

pytest_plugins = ["helpers.cohort_fixtures"]

OPTIMIZERS = [("adamw", 1e-3), ("sgd", 0.5)]
STEPS = some_steps(local_steps=4)


def moved(before: Mapping[str, AdapterState], after: Mapping[str, TrainedClient]) -> float:
    """How far the client went that went least."""
    return min(largest_gap(before[client], done.adapter) for client, done in after.items())


# SGD tells the length of a gradient, which AdamW hides.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("objective", "optimizer", "learning_rate", "local_steps"),
    [
        *((objective, "sgd", 0.5, 3) for objective in OBJECTIVES),
        ("kto with likelihood", "sgd", 0.5, 1),
        ("kto with likelihood", "adamw", 1e-3, 1),
        ("kto with likelihood", "adamw", 1e-3, 3),
        ("sdpo", "adamw", 1e-3, 3),
    ],
)
def test_lanes_are_clients_that_train_one_after_the_other(
    policy: PeftModel,
    adapters: Mapping[str, AdapterState],
    objective: str,
    optimizer: str,
    learning_rate: float,
    local_steps: int,
) -> None:
    steps = some_steps(optimizer=optimizer, local_steps=local_steps, weight_decay=0.01)
    wanted = OBJECTIVES[objective]
    expected = train(
        sequential_trainer(policy, wanted, steps=steps), adapters, learning_rate=learning_rate
    )
    found = train(lane_trainer(policy, wanted, steps=steps), adapters, learning_rate=learning_rate)
    assert_close(found, expected)
    # Fifty times what is tolerated, so that standing still would be noticed.
    assert moved(adapters, expected) > 5e-4


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["kto with likelihood", "sdpo"])
@pytest.mark.usefixtures("batched")
def test_lanes_that_are_filled_up_and_batched_are_as_well(
    policy: PeftModel, adapters: Mapping[str, AdapterState], objective: str
) -> None:
    wanted = OBJECTIVES[objective]
    expected = train(sequential_trainer(policy, wanted, steps=STEPS), adapters)
    trainer = lane_trainer(policy, wanted, steps=STEPS)
    assert_close(train(trainer, adapters), expected)
    assert trainer.count.padding > 0


@pytest.mark.slow
@pytest.mark.parametrize(("optimizer", "learning_rate"), OPTIMIZERS)
def test_lanes_take_the_baseline_that_the_server_sends(
    policy: PeftModel,
    adapters: Mapping[str, AdapterState],
    optimizer: str,
    learning_rate: float,
) -> None:
    terms: dict[str, Any] = {"learning_rate": learning_rate}
    steps = some_steps(optimizer=optimizer)
    lanes = lane_trainer(policy, PUBLIC_KTO, steps=steps)
    sequential = sequential_trainer(policy, PUBLIC_KTO, steps=steps)
    expected = train(sequential, adapters, kl_baseline=2.5, **terms)
    assert_close(train(lanes, adapters, kl_baseline=2.5, **terms), expected)
    # What was sent in one call is not what counts in the next.
    zero = train(lanes, adapters, kl_baseline=0.0, **terms)
    apo_zero = ApoZero(**WEIGHTS, nll_weight=0.25)
    assert_same_bits(zero, train(lane_trainer(policy, apo_zero, steps=steps), adapters, **terms))
    assert all(largest_gap(zero[c].adapter, expected[c].adapter) > 1e-4 for c in adapters)


@pytest.mark.parametrize("make", [lane_trainer, sequential_trainer])
def test_server_and_clients_with_different_objectives_train_nobody(
    policy: PeftModel, adapters: Mapping[str, AdapterState], make: Callable[..., CohortTrainer]
) -> None:
    for objective, sent in ((PUBLIC_KTO, None), (OBJECTIVES["kto"], 1.0)):
        with pytest.raises(FederationError, match="give both sides the same objective"):
            make(policy, objective)(adapters, round_num=1, learning_rate=0.1, kl_baseline=sent)


@pytest.mark.slow
def test_the_objectives_are_told_apart(
    policy: PeftModel, adapters: Mapping[str, AdapterState]
) -> None:
    steps = some_steps(optimizer="sgd", local_steps=1)
    found = {
        name: train(lane_trainer(policy, objective, steps=steps), adapters, learning_rate=0.5)
        for name, objective in OBJECTIVES.items()
    }
    for name, other in ((a, b) for a in found for b in found if a < b):
        assert any(
            largest_gap(found[name][client].adapter, found[other][client].adapter) > 1e-4
            for client in adapters
        ), f"{name} trains as {other} does"


ADAPTERS: list[dict[str, Any]] = [
    {"target_modules": ("q_proj", "v_proj")},
    {"target_modules": ("down_proj",)},
    {"target_modules": ("k_proj", "up_proj"), "freeze_a": True},
    {"freeze_a": True},
    {"rank_stabilized": True, "lora_rank": 5, "lora_alpha": 3.0},
]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "optimizer", "learning_rate"),
    [*((changes, "sgd", 0.5) for changes in ADAPTERS), (ADAPTERS[2], "adamw", 1e-3)],
)
def test_any_adapter_is_trained_as_peft_trains_it(
    tiny_base: BaseModel, changes: dict[str, Any], optimizer: str, learning_rate: float
) -> None:
    chosen: dict[str, Any] = {
        "lora_rank": 2,
        "lora_alpha": 4.0,
        "target_modules": "all-linear",
    } | changes
    policy = attach_adapter(tiny_base.model, seed=0, **chosen)
    adapters = own_adapters(policy, sorted(UNEQUAL))
    steps = some_steps(optimizer=optimizer, weight_decay=0.1)
    objective = OBJECTIVES["kto with likelihood"]
    expected = train(
        sequential_trainer(policy, objective, steps=steps), adapters, learning_rate=learning_rate
    )
    found = train(
        lane_trainer(policy, objective, steps=steps), adapters, learning_rate=learning_rate
    )
    # AdamW makes whole steps of gradients that are little but rounding.
    assert_close(found, expected, atol=1e-4 if optimizer == "adamw" else 1e-5)
    assert moved(adapters, expected) > 1e-3
    for client, start in adapters.items():
        for key in start:
            stays = torch.equal(found[client].adapter[key], start[key])
            assert stays == ("lora_A" in key and "freeze_a" in changes)


@pytest.mark.slow
def test_a_fresh_adapter_leaves_its_start_as_peft_does(tiny_base: BaseModel) -> None:
    policy = attach_adapter(
        tiny_base.model, lora_rank=2, lora_alpha=4, target_modules="all-linear", seed=0
    )
    adapters = dict.fromkeys(sorted(UNEQUAL), adapter_state(policy))
    for local_steps in (1, 4):
        steps = some_steps(local_steps=local_steps)
        expected = train(sequential_trainer(policy, OBJECTIVES["dpo"], steps=steps), adapters)
        found = train(lane_trainer(policy, OBJECTIVES["dpo"], steps=steps), adapters)
        assert_close(found, expected)


@pytest.mark.slow
def test_the_call_decides_and_nothing_that_was_trained_before(
    policy: PeftModel, adapters: Mapping[str, AdapterState]
) -> None:
    trainer = lane_trainer(policy, OBJECTIVES["kto"])
    first = train(trainer, adapters)
    other_round = train(trainer, {c: d.adapter for c, d in first.items()}, round_num=2)
    assert_same_bits(train(trainer, adapters), first)
    assert_same_bits(train(lane_trainer(policy, OBJECTIVES["kto"]), adapters), first)
    again = train(trainer, adapters, round_num=2)
    # One group a step or all of them: only a client with several has an order of its own.
    assert all(again[client].loss != first[client].loss for client in ("p3", "p4", "p5"))
    assert all(other_round[client].loss != again[client].loss for client in adapters)


@pytest.mark.slow
def test_what_is_given_and_the_policy_are_left_as_they_were(tiny_base: BaseModel) -> None:
    policy = a_policy(tiny_base)
    before = {name: parameter.clone() for name, parameter in policy.named_parameters()}
    adapters = own_adapters(policy, sorted(UNEQUAL))
    given = {c: {k: v.clone() for k, v in state.items()} for c, state in adapters.items()}
    found = train(lane_trainer(policy, OBJECTIVES["kto"]), adapters, learning_rate=1.0)
    for name, parameter in policy.named_parameters():
        assert torch.equal(parameter, before[name])
        assert parameter.grad is None
    for client, state in adapters.items():
        assert all(torch.equal(state[key], given[client][key]) for key in state)
    # What is returned is the caller's own, each tensor by itself.
    stores = [v.untyped_storage() for done in found.values() for v in done.adapter.values()]
    assert len({store.data_ptr() for store in stores}) == len(stores)
    values = [value for done in found.values() for value in done.adapter.values()]
    assert all(value.untyped_storage().nbytes() == 4 * value.numel() for value in values)
    assert not any(value.requires_grad for value in values)


@pytest.mark.slow
def test_what_the_policy_carries_does_not_count(tiny_base: BaseModel) -> None:
    policy = a_policy(tiny_base)
    trainer = lane_trainer(policy, OBJECTIVES["kto"])
    adapters = own_adapters(policy, sorted(UNEQUAL))
    first = train(trainer, adapters)
    stir(policy, seed=9)
    assert_same_bits(train(trainer, adapters), first)


@pytest.mark.slow
def test_one_adapter_for_all_is_the_same_as_a_copy_for_each(policy: PeftModel) -> None:
    state = adapter_state(policy)
    copies = {c: {k: v.clone() for k, v in state.items()} for c in sorted(UNEQUAL)}
    trainer = lane_trainer(policy, OBJECTIVES["sft"])
    assert_same_bits(train(trainer, dict.fromkeys(copies, state)), train(trainer, copies))


def test_a_cohort_of_nobody_is_trained_at_once(policy: PeftModel) -> None:
    assert lane_trainer(policy, OBJECTIVES["kto"])({}, round_num=1, learning_rate=0.1) == {}


@pytest.mark.slow
def test_the_reference_is_computed_once_and_is_the_sequential_one(
    policy: PeftModel, adapters: Mapping[str, AdapterState]
) -> None:
    tally = Tally(reference_scorer(LaneDecoder(policy), ROOM))
    of_lanes = cache(tally)
    trainer = lane_trainer(policy, OBJECTIVES["kto"], reference=of_lanes, steps=STEPS)
    for round_num in (1, 2, 3):
        states = {c: d.adapter for c, d in train(trainer, adapters, round_num=round_num).items()}
    train(trainer, states)
    # Four steps of two groups each go through all groups of a client.
    placed = [group for name, own in UNEQUAL.items() for group in of_lanes.place(name, own)]
    branches = branches_of(placed, OBJECTIVES["kto"])
    pairs = [
        (group.prompt.token_ids, ids)
        for group, completions in branches
        for ids in dict.fromkeys(c.token_ids for c in completions)
    ]
    assert sorted(tally.asked) == sorted(pairs)
    expected = sequential.reference_scorer(policy)(branches)
    torch.testing.assert_close(of_lanes.log_probabilities(branches), expected, atol=2e-5, rtol=1e-6)
    assert len(tally.asked) == len(pairs)


@pytest.mark.slow
def test_without_a_reference_none_is_asked_for(
    policy: PeftModel, adapters: Mapping[str, AdapterState]
) -> None:
    tally = Tally(reference_scorer(LaneDecoder(policy), ROOM))
    train(lane_trainer(policy, OBJECTIVES["sft"], reference=cache(tally)), adapters)
    assert tally.asked == []


def lanes_of(
    policy: PeftModel,
    objective: Objective,
    adapters: Mapping[str, AdapterState],
    groups: Mapping[str, Sequence[Group]] = UNEQUAL,
    own_steps: Mapping[str, LocalSteps] | None = None,
) -> list[Lane]:
    """What the trainer makes of a cohort in round 1, but for the steps that some take."""
    layout = LaneDecoder(policy).layout
    chosen = {client: (own_steps or {}).get(client, STEPS) for client in groups}
    return [
        Lane(
            client,
            layout.to_vector(adapters[client]),
            [
                branches_of(batch, objective)
                for batch in draw_batches(own, steps=steps, seed=SEED, client=client, round_num=1)
            ],
            1e-3,
            steps.max_grad_norm,
        )
        for (client, own), steps in zip(groups.items(), chosen.values(), strict=True)
    ]


def needs(
    policy: PeftModel,
    objective: Objective,
    groups: Mapping[str, Sequence[Group]] = UNEQUAL,
    *,
    checkpoint: bool,
) -> tuple[int, int]:
    """Bytes for the longest lane alone, and for all lanes at once."""
    lanes = lanes_of(policy, objective, own_adapters(policy, list(groups)), groups)
    rows = [lane.most_tokens for lane in lanes]
    longest = max(lane.longest_group for lane in lanes)
    cost = PassCost.of(LaneDecoder(policy), longest_group=longest, checkpoint=checkpoint)
    return cost.total(rows=max(rows), lanes=1), cost.total(rows=sum(rows), lanes=len(rows))


@pytest.fixture(scope="module")
def room(policy: PeftModel) -> tuple[int, int]:
    """The least memory in which the cohort can be trained, and what all of it takes at once."""
    least, _ = needs(policy, OBJECTIVES["kto"], checkpoint=True)
    _, most = needs(policy, OBJECTIVES["kto"], checkpoint=False)
    return least, most


@pytest.fixture(scope="module")
def together(policy: PeftModel, adapters: Mapping[str, AdapterState]) -> dict[str, TrainedClient]:
    """All lanes in one pass."""
    return train(lane_trainer(policy, OBJECTIVES["kto"], steps=STEPS), adapters)


@pytest.mark.slow
@settings(max_examples=5, deadline=None)
@given(st.floats(0, 1))
def test_any_memory_gives_the_same(
    policy: PeftModel,
    adapters: Mapping[str, AdapterState],
    together: Mapping[str, TrainedClient],
    room: tuple[int, int],
    share: float,
) -> None:
    least, most = room
    # More often little than much.
    memory_bytes = least + int(share**2 * (most - least))
    trainer = lane_trainer(policy, OBJECTIVES["kto"], memory_bytes=memory_bytes, steps=STEPS)
    assert_close(train(trainer, adapters), together)


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.0, 0.2, 1.0])
def test_training_keeps_to_its_memory(
    policy: PeftModel, adapters: Mapping[str, AdapterState], room: tuple[int, int], share: float
) -> None:
    least, most = room
    budget = least + int(share * (most - least))
    trainer = lane_trainer(policy, OBJECTIVES["kto"], memory_bytes=budget, steps=STEPS)
    lanes = lanes_of(policy, OBJECTIVES["kto"], adapters)
    assert peak_bytes(partial(trainer.train, lanes, round_num=1)) <= budget
    assert all(lane.failure is None for lane in lanes)


@pytest.mark.slow
def test_activations_are_computed_again_only_where_a_step_does_not_fit_otherwise() -> None:
    # Deep enough that what is kept outweighs what a layer holds for a moment.
    policy = with_random_adapter(
        tiny_decoder(vocab_size=300, max_position_embeddings=256, num_hidden_layers=8)
    )
    objective, layout = OBJECTIVES["kto"], LaneDecoder(policy).layout
    one = {"p5": UNEQUAL["p5"]}
    adapters = own_adapters(policy, ["p5"])
    enough, _ = needs(policy, objective, one, checkpoint=False)
    expected = train(sequential_trainer(policy, objective, steps=STEPS), adapters)["p5"]
    taken = {}
    for memory_bytes in (enough, enough - 1):
        trainer = lane_trainer(policy, objective, memory_bytes=memory_bytes, steps=STEPS)
        (lane,) = lanes_of(policy, objective, adapters, one)
        taken[memory_bytes] = peak_bytes(partial(trainer.train, [lane], round_num=1))
        assert largest_gap(layout.to_state(lane.values), expected.adapter) <= 1e-5
    assert taken[enough - 1] < 0.6 * taken[enough]


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.0, 0.5, 0.999])
def test_too_little_memory_is_an_error_whose_number_is_enough(
    policy: PeftModel,
    adapters: Mapping[str, AdapterState],
    together: Mapping[str, TrainedClient],
    room: tuple[int, int],
    share: float,
) -> None:
    objective, (least, _) = OBJECTIVES["kto"], room
    trainer = lane_trainer(policy, objective, memory_bytes=int(share * least), steps=STEPS)
    with pytest.raises(ModelError) as caught:
        trainer(adapters, round_num=1, learning_rate=1e-3)
    found = re.match(r"training\.memory_gib must be at least (\d+\.\d+) for", str(caught.value))
    assert found is not None
    enough = int(float(found[1]) * 2**30)
    trainer = lane_trainer(policy, objective, memory_bytes=enough, steps=STEPS)
    assert_close(train(trainer, adapters), together)


@pytest.mark.slow
@pytest.mark.parametrize("all_at_once", [True, False])
@pytest.mark.parametrize(("optimizer", "learning_rate"), OPTIMIZERS)
def test_lanes_have_steps_rates_and_longest_gradients_of_their_own(
    policy: PeftModel,
    adapters: Mapping[str, AdapterState],
    optimizer: str,
    learning_rate: float,
    all_at_once: bool,
) -> None:
    objective = OBJECTIVES["kto with likelihood"]
    least, _ = needs(policy, objective, checkpoint=True)
    trainer = lane_trainer(
        policy,
        objective,
        steps=some_steps(optimizer=optimizer),
        memory_bytes=ROOM if all_at_once else least,
    )
    # Clients with more groups have fewer steps here, so that lanes must be put in order.
    own = {
        f"p{number}": some_steps(
            optimizer=optimizer, local_steps=6 - number, max_grad_norm=0.1 * number
        )
        for number in range(1, 6)
    }
    lanes = lanes_of(policy, objective, adapters, own_steps=own)
    for number, lane in enumerate(lanes, start=1):
        lane.learning_rate = learning_rate / number
    trainer.train(lanes, round_num=1)
    assert [lane.name for lane in lanes] == list(own)
    layout = LaneDecoder(policy).layout
    for lane in lanes:
        steps = own[lane.name]
        alone = train(
            sequential_trainer(policy, objective, steps=steps),
            {lane.name: adapters[lane.name]},
            learning_rate=lane.learning_rate,
        )[lane.name]
        assert lane.failure is None
        assert len(lane.losses) == steps.local_steps
        assert sum(lane.losses) / len(lane.losses) == pytest.approx(alone.loss, abs=1e-5)
        assert largest_gap(layout.to_state(lane.values), alone.adapter) <= 1e-5
        assert largest_gap(adapters[lane.name], alone.adapter) > 1e-4


@pytest.mark.slow
def test_a_client_that_leaves_the_numbers_on_its_way_fails_alone(
    policy: PeftModel, adapters: Mapping[str, AdapterState]
) -> None:
    objective, steps = OBJECTIVES["kto"], some_steps(optimizer="sgd", local_steps=4)
    trainer = lane_trainer(policy, objective, steps=steps)
    lanes = lanes_of(policy, objective, adapters)
    lanes[1].learning_rate = 1e38
    trainer.train(lanes, round_num=2)
    assert isinstance(lanes[1].failure, FederationError)
    assert str(lanes[1].failure).startswith("client 'p2', round 2: the loss must be finite, got ")
    without = lanes_of(policy, objective, adapters)
    del without[1]
    lane_trainer(policy, objective, steps=steps).train(without, round_num=2)
    del lanes[1]
    for lane, alone in zip(lanes, without, strict=True):
        assert lane.failure is None
        assert lane.losses == pytest.approx(alone.losses, abs=1e-6)
        torch.testing.assert_close(lane.values, alone.values, atol=1e-6, rtol=0)


@pytest.mark.slow
def test_tokens_are_counted(policy: PeftModel, adapters: Mapping[str, AdapterState]) -> None:
    trainer = lane_trainer(policy, OBJECTIVES["kto"], steps=STEPS)
    train(trainer, adapters)
    lanes = lanes_of(policy, OBJECTIVES["kto"], adapters)
    tokens = sum(
        lane_passes.branch_tokens(branch)
        for lane in lanes
        for batch in lane.batches
        for branch in batch
    )
    assert trainer.count.tokens == tokens
    assert trainer.count.padding == 0
    train(trainer, adapters)
    assert trainer.count.tokens == 2 * tokens


@pytest.mark.slow
def test_many_small_clients_beside_a_large_one(policy: PeftModel) -> None:
    groups = {"large": some_groups(9, seed=1)} | {
        f"small{seed}": some_groups(1, seed=10 + seed) for seed in range(6)
    }
    adapters = own_adapters(policy, list(groups))
    steps = some_steps(local_steps=2, groups_per_step=9)
    objective = OBJECTIVES["sdpo"]
    found = train(lane_trainer(policy, objective, groups, steps=steps), adapters)
    assert_close(found, train(sequential_trainer(policy, objective, groups, steps=steps), adapters))
    assert {client: done.num_groups for client, done in found.items()} == {
        client: len(own) for client, own in groups.items()
    }
