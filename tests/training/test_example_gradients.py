from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import PeftModel
from torch import Tensor

from helpers.tiny_cohorts import OBJECTIVES, ROOM, SEED, cache, own_adapters, some_groups
from helpers.tiny_decoders import tiny_decoder, with_random_adapter
from helpers.tiny_groups import Ids, a_group, a_policy
from helpers.tiny_objectives import ByFunction
from pkgllm.errors import ModelError
from pkgllm.lm.adapter import AdapterState, attach_adapter, load_adapter_state
from pkgllm.lm.base_model import load_base_model
from pkgllm.lm.lanes.decoder import LaneDecoder
from pkgllm.objectives.objective import Objective
from pkgllm.objectives.scored_groups import ScoredGroups
from pkgllm.prompts.groups import Group
from pkgllm.training import lane_passes, sequential
from pkgllm.training.cohort import LaneTrainer
from pkgllm.training.example_gradients import ExampleGradients, example_gradients
from pkgllm.training.lane_memory import PassCost
from pkgllm.training.local import LocalSteps, TrainedClient
from pkgllm.training.reference import ReferenceColumn

GROUPS = some_groups(7, seed=3)
UNCOUPLED = [name for name in OBJECTIVES if not name.startswith("kto")]


@dataclass(frozen=True)
class Setting:
    """A decoder, the adapter that is asked about, and a policy that has it."""

    decoder: LaneDecoder
    adapter: AdapterState
    policy: PeftModel
    reference: ReferenceColumn

    @property
    def values(self) -> Tensor:
        return self.decoder.layout.to_vector(self.adapter)

    def parts(
        self,
        groups: Sequence[Group],
        objective: Objective,
        *,
        memory_bytes: int = ROOM,
        reference: ReferenceColumn | None = None,
    ) -> Iterator[ExampleGradients]:
        return example_gradients(
            self.decoder,
            self.values,
            groups,
            objective,
            reference or self.reference,
            memory_bytes=memory_bytes,
        )

    def gradients(
        self, groups: Sequence[Group], objective: Objective, *, memory_bytes: int = ROOM
    ) -> tuple[Tensor, list[float | Exception]]:
        """By the place of each example, of which each comes once."""
        gradients = torch.full((len(groups), self.decoder.layout.num_values), torch.nan)
        losses: dict[int, float | Exception] = {}
        for part in self.parts(groups, objective, memory_bytes=memory_bytes):
            assert part.indices
            assert losses.keys().isdisjoint(part.indices)
            gradients[list(part.indices)] = part.gradients
            losses |= zip(part.indices, part.losses, strict=True)
        assert sorted(losses) == list(range(len(groups)))
        return gradients, [losses[index] for index in range(len(groups))]

    def of_batch(self, groups: Sequence[Group], objective: Objective) -> tuple[Tensor, float]:
        """The gradient of a batch's loss, through PEFT's policy by autograd."""
        trained = {
            name.replace(".default", ""): parameter
            for name, parameter in self.policy.named_parameters()
            if "lora_" in name
        }
        loss = objective.loss(sequential.score(self.policy, groups, objective, self.reference))
        found = torch.autograd.grad(loss, list(trained.values()))
        return self.decoder.layout.to_vector(dict(zip(trained, found, strict=True))), loss.item()


def a_setting(folder: Path, *, freeze_a: bool = False) -> Setting:
    base = load_base_model(str(folder), device="cpu")
    # What the decoder's own policy has learnt must not matter.
    decoder = LaneDecoder(
        attach_adapter(
            base.model,
            lora_rank=2,
            lora_alpha=4,
            target_modules="all-linear",
            seed=5,
            freeze_a=freeze_a,
        )
    )
    policy = a_policy(load_base_model(str(folder), device="cpu"))
    adapter = own_adapters(policy, ["p1"])["p1"]
    load_adapter_state(policy, adapter)
    return Setting(decoder, adapter, policy, cache(sequential.reference_scorer(policy)))


@pytest.fixture(scope="module")
def setting(tiny_base_folder: Path) -> Setting:
    return a_setting(tiny_base_folder)


def assert_rows_close(found: Tensor, expected: Tensor) -> None:
    """Each row to 1e-5 of its largest value; what cancels out in it may leave rounding."""
    assert found.shape == expected.shape
    largest = expected.abs().amax(-1).clamp(min=1e-2)
    gap = (found - expected).abs().amax(-1)
    assert (gap <= 1e-5 * largest).all(), (gap / largest).tolist()


@pytest.mark.slow
@pytest.mark.parametrize("name", OBJECTIVES)
def test_equal_one_example_at_a_time(setting: Setting, name: str) -> None:
    objective = OBJECTIVES[name]
    found, losses = setting.gradients(GROUPS, objective)
    expected = [setting.of_batch([group], objective) for group in GROUPS]
    assert_rows_close(found, torch.stack([gradient for gradient, _ in expected]))
    assert losses == pytest.approx([loss for _, loss in expected], rel=1e-5, abs=1e-6)
    # More than one of them says something, and they do not say the same.
    assert (found.abs().amax(1) > 1e-3).sum() >= 3
    assert (found - found.mean(0)).abs().max() > 1e-3


@pytest.mark.parametrize("name", UNCOUPLED)
def test_their_mean_is_the_gradient_of_the_batch(setting: Setting, name: str) -> None:
    objective = OBJECTIVES[name]
    found, losses = setting.gradients(GROUPS, objective)
    expected, loss = setting.of_batch(GROUPS, objective)
    assert_rows_close(found.mean(0), expected)
    assert sum(loss for loss in losses if isinstance(loss, float)) / len(losses) == pytest.approx(
        loss, rel=1e-5
    )


@pytest.mark.parametrize("name", UNCOUPLED)
def test_their_mean_is_where_a_client_in_a_lane_goes(setting: Setting, name: str) -> None:
    learning_rate = 1e3
    trainer = LaneTrainer(
        setting.decoder,
        {"p1": GROUPS},
        OBJECTIVES[name],
        setting.reference,
        # So far a step that rounding is lost in it, and never cut short.
        steps=LocalSteps(
            optimizer="sgd",
            local_steps=1,
            groups_per_step=len(GROUPS),
            max_grad_norm=float("inf"),
        ),
        seed=SEED,
        memory_bytes=ROOM,
    )
    trained = trainer({"p1": setting.adapter}, round_num=1, learning_rate=learning_rate)["p1"]
    assert isinstance(trained, TrainedClient)
    step = setting.values - setting.decoder.layout.to_vector(trained.adapter)
    found, _ = setting.gradients(GROUPS, OBJECTIVES[name])
    assert_rows_close(found.mean(0), step / learning_rate)


def test_the_baseline_of_kto_couples_a_batch_but_not_its_examples(setting: Setting) -> None:
    found, _ = setting.gradients(GROUPS, OBJECTIVES["kto"])
    coupled, _ = setting.of_batch(GROUPS, OBJECTIVES["kto"])
    assert (found.mean(0) - coupled).abs().max() > 1e-3 * coupled.abs().max()


token_ids: st.SearchStrategy[Ids] = st.lists(st.integers(3, 250), min_size=1, max_size=5).map(tuple)
groups_of_anything = st.builds(
    a_group,
    token_ids,
    st.lists(token_ids, min_size=1, max_size=3),
    st.lists(token_ids, max_size=3),
    st.lists(token_ids, min_size=1, max_size=2).map(tuple),
)


@pytest.mark.slow
@settings(deadline=None, max_examples=40)
@given(data=st.data(), groups=st.lists(groups_of_anything, min_size=1, max_size=5))
def test_neither_order_nor_neighbours_nor_memory_change_an_example(
    setting: Setting, data: st.DataObject, groups: list[Group]
) -> None:
    objective = OBJECTIVES[data.draw(st.sampled_from(sorted(OBJECTIVES)))]
    kept = data.draw(st.permutations(range(len(groups))))
    kept = kept[: data.draw(st.integers(1, len(groups)))]
    tokens = [lane_passes.branch_tokens((g, (*g.completions, *g.mismatched))) for g in groups]
    cost = PassCost.of(setting.decoder, longest_group=max(tokens), checkpoint=False)
    memory_bytes = cost.total(
        rows=data.draw(st.integers(max(tokens), sum(tokens))),
        lanes=data.draw(st.integers(1, len(groups))),
    )
    found, losses = setting.gradients(groups, objective)
    others, other_losses = setting.gradients(
        [groups[index] for index in kept], objective, memory_bytes=memory_bytes
    )
    assert other_losses == pytest.approx([losses[index] for index in kept], rel=1e-5, abs=1e-6)
    assert_rows_close(others, found[kept])


@pytest.mark.slow
@pytest.mark.parametrize("together", [1, 2, 5])
def test_as_many_at_once_as_fit_into_the_memory(setting: Setting, together: int) -> None:
    objective = OBJECTIVES["apo_zero"]
    groups = [a_group((5, 6, number), [(7, 8, 2)], [(9, 2)]) for number in range(10, 15)]
    tokens = lane_passes.branch_tokens((groups[0], groups[0].completions))
    cost = PassCost.of(setting.decoder, longest_group=tokens, checkpoint=False)
    memory_bytes = cost.total(rows=together * tokens, lanes=together)
    sizes = [
        len(part.indices) for part in setting.parts(groups, objective, memory_bytes=memory_bytes)
    ]
    assert sizes == {1: [1] * 5, 2: [2, 2, 1], 5: [5]}[together]
    found, _ = setting.gradients(groups, objective, memory_bytes=memory_bytes)
    at_once, _ = setting.gradients(groups, objective)
    assert_rows_close(found, at_once)


def test_an_example_that_does_not_fit_in_is_refused(setting: Setting) -> None:
    with pytest.raises(ModelError, match=r"training\.memory_gib must be at least"):
        next(setting.parts(GROUPS, OBJECTIVES["sft"], memory_bytes=2**10))


def test_an_empty_batch_yields_nothing(setting: Setting) -> None:
    # Poisson sampling draws one now and then, whatever the memory.
    assert list(setting.parts([], OBJECTIVES["apo_zero"], memory_bytes=0)) == []


def test_a_frozen_first_factor_has_no_gradient(setting: Setting, tiny_base_folder: Path) -> None:
    frozen = a_setting(tiny_base_folder, freeze_a=True)
    found, losses = frozen.gradients(GROUPS, OBJECTIVES["apo_zero"])
    expected, expected_losses = setting.gradients(GROUPS, OBJECTIVES["apo_zero"])
    first = frozen.decoder.layout.num_lora_a
    assert expected[:, :first].any(1).all()
    assert not found[:, :first].any()
    assert_rows_close(found[:, first:], expected[:, first:])
    assert losses == pytest.approx(expected_losses, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("name", ["kto", "apo_zero", "dpo", "sft"])
def test_examples_that_are_filled_up_as_for_a_gpu_get_the_same(
    setting: Setting, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    expected, losses = setting.gradients(GROUPS, OBJECTIVES[name])
    for module in ("lane_passes", "example_gradients"):
        monkeypatch.setattr(f"pkgllm.training.{module}.is_batched", lambda decoder: True)
    found, found_losses = setting.gradients(GROUPS, OBJECTIVES[name])
    assert_rows_close(found, expected)
    assert found_losses == pytest.approx(losses, rel=1e-5, abs=1e-6)


class RefusalError(Exception):
    """Raised by an objective that an example cannot have."""


@pytest.mark.parametrize("answer", [RefusalError("no"), float("nan"), float("inf")])
@pytest.mark.parametrize("together", [True, False])
def test_an_example_that_fails_does_so_alone(
    setting: Setting, answer: float | Exception, together: bool
) -> None:
    objective = OBJECTIVES["apo_zero"]
    groups = [
        a_group((5, number), [(7, 8, 2)] * (1 + (number == 12)), [(9, 2)])
        for number in range(10, 15)
    ]

    def loss(scored: ScoredGroups) -> Tensor:
        if len(scored.desirable) == 2:
            return objective.loss(scored)
        if isinstance(answer, Exception):
            raise answer
        return answer * scored.policy.sum()

    tokens = lane_passes.branch_tokens((groups[2], groups[2].completions))
    cost = PassCost.of(setting.decoder, longest_group=tokens, checkpoint=False)
    budget = ROOM if together else cost.total(rows=tokens, lanes=1)
    failing = ByFunction(function=loss)
    found, losses = setting.gradients(groups, failing, memory_bytes=budget)
    expected, good = setting.gradients(groups, objective, memory_bytes=budget)
    others = [0, 1, 3, 4]
    assert torch.equal(found[others], expected[others])
    assert [losses[index] for index in others] == [good[index] for index in others]
    assert expected[2].any()
    assert not found[2].any()
    if isinstance(answer, Exception):
        assert losses[2] is answer
    else:
        assert isinstance(losses[2], float)
        assert not abs(losses[2]) < float("inf")


@pytest.mark.parametrize("name", ["kto", "apo_zero", "dpo", "sft"])
def test_an_example_that_leaves_the_numbers_on_its_way_adds_nothing(name: str) -> None:
    model = tiny_decoder(tie_word_embeddings=False)
    with torch.no_grad():
        model.get_parameter("model.embed_tokens.weight")[59] = torch.inf
    policy = with_random_adapter(model)
    decoder = LaneDecoder(policy)
    adapter = own_adapters(policy, ["p1"])["p1"]
    # Its reference is finite, so that all comes to depend on the pass with the adapter.
    reference = cache(lambda branches: torch.full((sum(len(c) for _, c in branches),), -3.0))
    damaged = Setting(decoder, adapter, policy, reference)
    groups = [a_group((5, number), [(7, 8, 2)], [(9, 2)], ((4, 2),)) for number in (10, 11, 59, 12)]
    found, losses = damaged.gradients(groups, OBJECTIVES[name])
    others = [0, 1, 3]
    expected, good = damaged.gradients([groups[index] for index in others], OBJECTIVES[name])
    assert isinstance(losses[2], float)
    assert not abs(losses[2]) < float("inf")
    assert torch.equal(found[2], torch.zeros_like(found[2]))
    assert_rows_close(found[others], expected)
    assert [losses[index] for index in others] == pytest.approx(good, rel=1e-5)
