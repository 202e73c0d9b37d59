import torch
from hypothesis import given
from hypothesis import strategies as st

from helpers.labelled_groups import (
    Labels,
    assert_cut_from,
    examples,
    label_lists,
    own_groups,
)
from pkgllm.objectives.dpo import Dpo
from pkgllm.prompts.groups import Group
from pkgllm.prompts.partition.cuts import cut, with_label
from pkgllm.prompts.partition.one_sided import draw_sides
from pkgllm.prompts.partition.paired import matched
from pkgllm.prompts.partition.partition import LabelCounts, count_labels
from pkgllm.randomness import stream
from pkgllm.training.batches import branches_of, scored_groups


def test_labels_are_counted_in_every_group_anew() -> None:
    groups = own_groups("p1", [[True, False, False], [True]])
    found = count_labels((*groups, groups[0]))
    assert found == LabelCounts(groups=3, desirable=3, undesirable=4)
    assert (found.examples, found.undesirable_share) == (7, 4 / 7)
    assert count_labels(()) == LabelCounts(0, 0, 0)
    assert count_labels(()).undesirable_share == 0


@given(label_lists, st.data())
def test_a_cut_keeps_what_it_is_told_and_nothing_empty(labels: Labels, data: st.DataObject) -> None:
    whole = own_groups("p1", labels)
    places = [(n, place) for n, own in enumerate(labels) for place in range(len(own))]
    kept = data.draw(st.sets(st.sampled_from(places)))
    groups = cut(whole, lambda number, place: (number, place) in kept)
    assert_cut_from(groups, whole)
    assert examples(groups) == {
        (whole[number].prompt, whole[number].completions[place]): 1 for number, place in kept
    }


def test_a_cut_that_leaves_all_changes_nothing() -> None:
    whole = own_groups("p1", [[True, False], [False], [True, True]])
    assert cut(whole, lambda number, place: True) == whole
    assert cut(whole, lambda number, place: False) == ()


def moved_by_matched_pairs(groups: tuple[Group, ...]) -> list[bool]:
    """Tell of each completion whether the loss of matched pairs depends on it."""
    objective = Dpo(beta=0.1, nll_weight=0, pairs="matched")
    branches = branches_of(groups, objective)
    policy = torch.zeros(sum(len(found) for _, found in branches), requires_grad=True)
    loss = objective.loss(scored_groups(branches, policy, torch.zeros(len(policy))))
    (gradient,) = torch.autograd.grad(loss, policy)
    return [bool(value) for value in gradient != 0]


@given(label_lists)
def test_pairs_are_what_the_objective_uses(labels: Labels) -> None:
    whole = own_groups("p1", labels)
    groups = matched(whole)
    assert_cut_from(groups, whole)
    all_examples = list(examples(whole))
    used = [
        example
        for example, moved in zip(all_examples, moved_by_matched_pairs(whole), strict=True)
        if moved
    ]
    assert list(examples(groups)) == used
    assert groups == () or all(moved_by_matched_pairs(groups))
    for group in groups:
        found = count_labels([group])
        assert found.desirable == found.undesirable > 0


def test_pairs_by_hand() -> None:
    # Two likes and three dislikes make two pairs; likes alone make none.
    whole = own_groups("p1", [[True, False, False, True, False], [True, True]])
    (group,) = matched(whole)
    assert [completion.item for completion in group.completions] == [
        "p1-0-0",
        "p1-0-1",
        "p1-0-2",
        "p1-0-3",
    ]
    # With one group left, it is its own next one.
    assert group.mismatched == group.completions


@given(label_lists, st.booleans())
def test_one_label_is_left_whole_and_the_other_gone(labels: Labels, desirable: bool) -> None:
    whole = own_groups("p1", labels)
    groups = with_label(whole, desirable=desirable)
    assert_cut_from(groups, whole)
    assert examples(groups) == {
        example: 1 for example in examples(whole) if example[1].desirable == desirable
    }


@given(st.integers(1, 60), st.floats(0, 1, exclude_min=True), st.integers(0, 2**32))
def test_half_of_those_who_are_drawn_keep_what_they_like(
    num_clients: int, share: float, seed: int
) -> None:
    clients = [f"p{number}" for number in range(num_clients)]
    sides = draw_sides(clients, share=share, generator=stream(seed, "sides"))
    assert sides == draw_sides(clients, share=share, generator=stream(seed, "sides"))
    assert set(sides) <= set(clients)
    assert len(sides) == max(1, round(share * num_clients))
    likes = sum(sides.values())
    assert likes - (len(sides) - likes) in (0, 1)


def test_sides_are_drawn_with_the_seed() -> None:
    clients = [f"p{number}" for number in range(20)]
    drawn = [draw_sides(clients, share=0.5, generator=stream(seed, "s")) for seed in range(6)]
    assert len({frozenset(sides) for sides in drawn}) == 6
    assert len({sides.get("p3") for sides in drawn}) > 1
