"""Per-example gradients equal those of Opacus' hooks, called live on the same token ids.

Opacus takes a row of a batch for an example, so it cannot read a group that shares its prompt among
several completions. It does add up what the forward passes before one backward pass leave for a
row: the first completions of all groups go through the policy, then the second ones, and so on.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from opacus.grad_sample import GradSampleModule
from peft import PeftModel
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from helpers.tiny_decoders import tiny_decoder, with_random_adapter
from pkgllm.lm.adapter import adapter_state
from pkgllm.lm.lanes.decoder import LaneDecoder
from pkgllm.objectives.apo_zero import ApoZero
from pkgllm.objectives.dpo import Dpo
from pkgllm.objectives.objective import Objective
from pkgllm.objectives.sft import Sft
from pkgllm.prompts.groups import Completion, Group
from pkgllm.prompts.prompts import Prompt
from pkgllm.training.example_gradients import example_gradients
from pkgllm.training.lane_passes import reference_scorer
from pkgllm.training.reference import ReferenceColumn

# The rows that enter the first layer are frozen, and Opacus does not need their gradient.
pytestmark = pytest.mark.filterwarnings("ignore:Full backward hook is firing")

Ids = tuple[int, ...]
ExampleLoss = Callable[[Tensor, Tensor, list[bool]], Tensor]
"""From a group's log-probabilities by the policy and by the reference, and what is desirable."""

BETA, DESIRABLE_WEIGHT, UNDESIRABLE_WEIGHT = 0.4, 1.3, 0.6
ROOM = 2**30


def a_group(prompt: Ids, desirable: Sequence[Ids], undesirable: Sequence[Ids]) -> Group:
    return Group(
        Prompt("client", "", "", prompt, frozenset(), 0),
        (
            *(Completion("item", ids, True, "liked") for ids in desirable),
            *(Completion("item", ids, False, "uniform") for ids in undesirable),
        ),
    )


ONE_COMPLETION = (
    a_group((5, 9, 11, 40), [(20, 21, 2)], []),
    a_group((6, 8), [], [(22, 2)]),
    a_group((30, 31, 32, 33, 34, 35, 36), [(23, 24, 25, 26, 2)], []),
    a_group((7,), [(2,)], []),
    a_group((17, 12, 5), [], [(50, 51, 2)]),
)
PAIRS = (
    a_group((5, 9, 11, 40), [(20, 21, 2)], [(50, 2)]),
    a_group((6, 8), [(22, 2)], [(51, 52, 53, 2)]),
    a_group((30, 31, 32, 33, 34, 35, 36), [(23, 24, 25, 26, 2)], [(54, 2)]),
    a_group((7,), [(2,)], [(55,)]),
)
SEVERAL = (
    a_group((5, 9, 11, 40), [(20, 21, 2), (41, 2)], [(50, 2), (42, 43, 44, 2), (45, 2)]),
    a_group((6, 8), [(22, 2)], [(51, 52, 53, 2)]),
    a_group((30, 31, 32, 33, 34, 35, 36), [(23, 24, 25, 26, 2), (46, 2), (47, 2)], []),
    a_group((7,), [(2,)], [(55,), (56, 2), (57, 58, 2)]),
)


def apo_zero(policy: Tensor, reference: Tensor, desirable: list[bool]) -> Tensor:
    losses = [
        DESIRABLE_WEIGHT * torch.sigmoid(-BETA * ratio)
        if wanted
        else UNDESIRABLE_WEIGHT * torch.sigmoid(BETA * ratio)
        for ratio, wanted in zip(policy - reference, desirable, strict=True)
    ]
    return torch.stack(losses).mean()


def dpo(policy: Tensor, reference: Tensor, desirable: list[bool]) -> Tensor:
    ratio = policy - reference
    losses = [
        -torch.sigmoid(BETA * (ratio[winner] - ratio[loser])).log()
        for winner, wanted in enumerate(desirable)
        for loser, other in enumerate(desirable)
        if wanted and not other
    ]
    return torch.stack(losses).mean() if losses else 0 * policy.sum()


def sft(policy: Tensor, reference: Tensor, desirable: list[bool]) -> Tensor:
    losses = [-found for found, wanted in zip(policy, desirable, strict=True) if wanted]
    return torch.stack(losses).mean() if losses else 0 * policy.sum()


OURS: dict[ExampleLoss, Objective] = {
    apo_zero: ApoZero(
        beta=BETA,
        desirable_weight=DESIRABLE_WEIGHT,
        undesirable_weight=UNDESIRABLE_WEIGHT,
        nll_weight=0,
    ),
    dpo: Dpo(beta=BETA, nll_weight=0),
    sft: Sft(),
}


def our_gradients(
    decoder: LaneDecoder, state: dict[str, Tensor], groups: Sequence[Group], objective: Objective
) -> Tensor:
    reference = ReferenceColumn(reference_scorer(decoder, ROOM))
    (part,) = example_gradients(
        decoder, decoder.layout.to_vector(state), groups, objective, reference, memory_bytes=ROOM
    )
    order = torch.tensor(part.indices).argsort()
    return part.gradients[order]


@dataclass
class Opacus:
    """A policy with Opacus' hooks on the linear layers of its adapter."""

    policy: PeftModel
    loss_reduction: str = "sum"

    def gradients(self, groups: Sequence[Group], loss: ExampleLoss) -> dict[str, Tensor]:
        """Of each example, by PEFT's key names; shape ``(examples, ...)``."""
        hooked = GradSampleModule(
            # The hooks take nothing down outside of training; there is no dropout.
            self.policy.train(),
            batch_first=True,
            loss_reduction=self.loss_reduction,
        )
        with torch.no_grad(), self.policy.disable_adapter():
            reference = self.scores(self.policy, groups)
        policy = self.scores(hooked, groups)
        losses = torch.stack(
            [
                loss(of_group, base.detach(), [c.desirable for c in group.completions])
                for of_group, base, group in zip(policy, reference, groups, strict=True)
            ]
        )
        reduced = losses.sum() if self.loss_reduction == "sum" else losses.mean()
        reduced.backward()  # type: ignore[no-untyped-call]
        parameters: list[tuple[str, Any]] = list(self.policy.named_parameters())
        found = {
            name.replace(".default", ""): parameter.grad_sample
            for name, parameter in parameters
            if parameter.requires_grad
        }
        hooked.to_standard_module()
        return found

    def scores(self, model: Any, groups: Sequence[Group]) -> list[Tensor]:
        """The log-probabilities of each group's completions, by as many forward passes."""
        most = max(len(group.completions) for group in groups)
        columns = []
        for number in range(most):
            # A group with fewer completions goes along with its last one, which is not looked at.
            rows = [
                (g.prompt.token_ids, g.completions[min(number, len(g.completions) - 1)].token_ids)
                for g in groups
            ]
            columns.append(batch_log_probabilities(model, rows))
        table = torch.stack(columns, 1)
        return [row[: len(group.completions)] for row, group in zip(table, groups, strict=True)]


def batch_log_probabilities(model: Any, rows: Sequence[tuple[Ids, Ids]]) -> Tensor:
    """Of one completion after each prompt; shorter rows are filled up on the right."""
    sequences = [torch.tensor(prompt + completion) for prompt, completion in rows]
    masks = [torch.ones_like(sequence) for sequence in sequences]
    logits = model(
        input_ids=pad_sequence(sequences, batch_first=True),
        attention_mask=pad_sequence(masks, batch_first=True),
        use_cache=False,
    ).logits.log_softmax(-1)
    return torch.stack(
        [
            logits[
                index, torch.arange(len(prompt) - 1, len(sequence) - 1), sequence[len(prompt) :]
            ].sum()
            for index, ((prompt, _), sequence) in enumerate(zip(rows, sequences, strict=True))
        ]
    )


def assert_equal(
    decoder: LaneDecoder, found: Tensor, theirs: dict[str, Tensor], *, silent: Sequence[int] = ()
) -> None:
    """Each example to 1e-5 of its largest value."""
    for index, row in enumerate(found):
        expected = decoder.layout.to_vector({name: rows[index] for name, rows in theirs.items()})
        largest = expected.abs().max()
        assert (largest == 0) == (index in silent)
        assert largest == 0 or largest > 1e-4
        assert (row - expected).abs().max() <= 1e-5 * largest


@pytest.mark.slow
@pytest.mark.parametrize(
    ("loss", "groups", "silent"),
    [
        # An undesirable completion alone has no likelihood to raise, nor a desirable one a pair.
        (apo_zero, ONE_COMPLETION, ()),
        (sft, ONE_COMPLETION, (1, 4)),
        (dpo, PAIRS, ()),
        (apo_zero, SEVERAL, ()),
        (sft, SEVERAL, ()),
        (dpo, SEVERAL, (2,)),
    ],
    ids=["apo_zero", "sft", "dpo", "apo_zero-several", "sft-several", "dpo-several"],
)
@pytest.mark.parametrize("loss_reduction", ["sum", "mean"])
def test_gradients_are_those_of_the_hooks(
    loss: ExampleLoss, groups: Sequence[Group], silent: Sequence[int], loss_reduction: str
) -> None:
    policy = with_random_adapter(tiny_decoder())
    decoder = LaneDecoder(policy)
    found = our_gradients(decoder, adapter_state(policy), groups, OURS[loss])
    theirs = Opacus(policy, loss_reduction).gradients(groups, loss)
    assert_equal(decoder, found, theirs, silent=silent)


@pytest.mark.parametrize("model_type", ["llama", "qwen2", "qwen3"])
def test_every_type_of_base_model(model_type: str) -> None:
    policy = with_random_adapter(tiny_decoder(model_type))
    decoder = LaneDecoder(policy)
    found = our_gradients(decoder, adapter_state(policy), SEVERAL, OURS[dpo])
    assert_equal(decoder, found, Opacus(policy).gradients(SEVERAL, dpo), silent=(2,))


def test_some_layers_and_a_scale_by_the_root_of_the_rank() -> None:
    policy = with_random_adapter(tiny_decoder(), ["q_proj", "v_proj", "down_proj"], use_rslora=True)
    decoder = LaneDecoder(policy)
    found = our_gradients(decoder, adapter_state(policy), PAIRS, OURS[apo_zero])
    assert_equal(decoder, found, Opacus(policy).gradients(PAIRS, apo_zero))
