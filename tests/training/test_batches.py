from collections import Counter
from collections.abc import Iterator, Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from helpers.tiny_groups import a_group
from pkgllm.objectives.dpo import Dpo
from pkgllm.objectives.kto import Kto
from pkgllm.objectives.objective import Objective
from pkgllm.objectives.sft import Sft
from pkgllm.prompts.groups import Group
from pkgllm.training.batches import branches_of, draw_batches, scored_groups
from pkgllm.training.local import LocalSteps

KTO = Kto(beta=0.1, desirable_weight=1, undesirable_weight=1, nll_weight=0)


def some_groups(count: int) -> list[Group]:
    return [a_group((number + 3,), [(9, 2)], []) for number in range(count)]


def drawn(
    groups: Sequence[Group], local_steps: int, groups_per_step: int, seed: int = 0
) -> Iterator[list[Group]]:
    steps = LocalSteps(local_steps=local_steps, groups_per_step=groups_per_step)
    return draw_batches(groups, steps=steps, seed=seed, client="p1", round_num=1)


@given(
    num_groups=st.integers(1, 12),
    groups_per_step=st.integers(1, 15),
    local_steps=st.integers(0, 12),
    seed=st.integers(0, 5),
)
def test_batches_cover_all_groups_before_any_comes_again(
    num_groups: int, groups_per_step: int, local_steps: int, seed: int
) -> None:
    groups = some_groups(num_groups)
    batches = list(drawn(groups, local_steps, groups_per_step, seed))
    assert batches == list(drawn(groups, local_steps, groups_per_step, seed))
    assert [len(batch) for batch in batches] == [min(groups_per_step, num_groups)] * local_steps
    tally = Counter(dict.fromkeys(groups, 0))
    for batch in batches:
        assert len(set(batch)) == len(batch)
        for group in batch:
            assert tally[group] == min(tally.values())
            tally[group] += 1


@given(st.integers(1, 7), st.integers(1, 4), st.integers(0, 6), st.integers(0, 6))
def test_more_steps_go_on_where_fewer_end(
    num_groups: int, groups_per_step: int, fewer: int, more: int
) -> None:
    groups = some_groups(num_groups)
    longer = list(drawn(groups, fewer + more, groups_per_step))
    assert longer[:fewer] == list(drawn(groups, fewer, groups_per_step))


def test_clients_rounds_and_seeds_draw_in_their_own_order() -> None:
    groups, steps = some_groups(12), LocalSteps(local_steps=3, groups_per_step=4)
    orders = {
        tuple(
            group.prompt.token_ids
            for batch in draw_batches(
                groups, steps=steps, seed=seed, client=client, round_num=round_num
            )
            for group in batch
        )
        for seed in (0, 1)
        for client in ("a", "b")
        for round_num in (1, 2)
    }
    assert len(orders) == 8


FIRST = a_group((5, 6), [(20, 2)], [(21, 2), (2,)], ((30, 2),))
SECOND = a_group((7,), [(23, 2), (24, 25, 2)], [], ((31, 2), (32, 2)))


@pytest.mark.parametrize(
    ("objective", "mismatched"), [(KTO, True), (Dpo(beta=0.1, nll_weight=0), False)]
)
def test_mismatched_completions_come_last_and_only_where_they_are_needed(
    objective: Objective, mismatched: bool
) -> None:
    found = branches_of([FIRST, SECOND], objective)
    assert [group for group, _ in found] == [FIRST, SECOND]
    for group, completions in found:
        expected = (*group.completions, *(group.mismatched if mismatched else ()))
        assert tuple(completions) == expected


def test_log_probabilities_are_taken_apart_by_hand() -> None:
    branches = branches_of([FIRST, SECOND], KTO)
    # First: 20, 21, nothing but the end, then the mismatched 30; second: 23, 24, then 31 and 32.
    policy = torch.tensor([-1.0, -2, -3, -4, -5, -6, -7, -8], requires_grad=True)
    reference = torch.tensor([-1.5, -2, -2.5, -5, -5.5, -6, -7, -6])
    found = scored_groups(branches, policy, reference)
    assert found.policy.tolist() == [-1, -2, -3, -5, -6]
    assert found.reference.tolist() == [-1.5, -2, -2.5, -5.5, -6]
    assert found.desirable.tolist() == [True, False, False, True, True]
    assert found.num_tokens.tolist() == [2, 2, 1, 2, 3]
    assert found.group_index.tolist() == [0, 0, 0, 1, 1]
    assert found.num_groups == 2
    assert found.mismatched_log_ratio.tolist() == [1, 0, -2]
    assert not found.mismatched_log_ratio.requires_grad
    (gradient,) = torch.autograd.grad(found.policy.sum(), policy)
    assert gradient.tolist() == [1, 1, 1, 0, 1, 1, 0, 0]


def test_without_a_reference_no_log_ratio_is_left() -> None:
    branches = branches_of([FIRST, SECOND], Sft())
    policy = torch.tensor([-1.0, -2, -3, -5, -6], requires_grad=True)
    found = scored_groups(branches, policy, None)
    assert found.log_ratio.tolist() == [0] * 5
    assert not found.reference.requires_grad
    assert found.mismatched_log_ratio.tolist() == []


def test_a_group_without_completions_of_its_own_still_counts() -> None:
    empty = a_group((8,), [], [], ((33, 2),))
    found = scored_groups(branches_of([empty, FIRST], KTO), torch.zeros(5), torch.zeros(5))
    assert found.num_groups == 2
    assert found.group_index.tolist() == [1, 1, 1]
