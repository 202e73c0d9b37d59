import errno
import hashlib
import os
import struct
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from peft import PeftModel

from helpers.tiny_groups import Ids, a_group, a_policy, log_probability, stir
from pkgllm.errors import RunError
from pkgllm.lm.base_model import BaseModel
from pkgllm.prompts.groups import Completion, Group
from pkgllm.training.log_probabilities import Branch
from pkgllm.training.reference import ReferenceColumn
from pkgllm.training.sequential import reference_scorer

Pair = tuple[Ids, Ids]
"""A prompt and a completion."""


def value_of(pair: Pair) -> float:
    """An invented value that a pair always has, as a float32."""
    number = struct.unpack("<I", hashlib.sha256(repr(pair).encode()).digest()[:4])[0]
    value: float = struct.unpack("<f", struct.pack("<f", -1 - number / 7))[0]
    return value


class Scores:
    """Scores pairs with their invented values, and remembers what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[Pair] = []

    def __call__(self, branches: Sequence[Branch]) -> torch.Tensor:
        assert branches
        pairs = [(group.prompt.token_ids, c.token_ids) for group, own in branches for c in own]
        self.asked += pairs
        return torch.tensor([value_of(pair) for pair in pairs])


def everything(group: Group) -> tuple[Completion, ...]:
    return (*group.completions, *group.mismatched)


def expected(branches: Sequence[Branch]) -> list[float]:
    return [value_of((group.prompt.token_ids, c.token_ids)) for group, own in branches for c in own]


@pytest.fixture
def policy(tiny_base: BaseModel) -> PeftModel:
    return a_policy(tiny_base)


GROUPS = (
    a_group((5, 9, 11, 40), [(20, 21, 2)], [(22, 2), (23, 24, 2)], ((20, 21, 2), (50, 2))),
    a_group((6, 8), [(20, 21, 2)], [(50, 51, 52, 2)]),
)


def test_equals_a_direct_computation_without_the_adapter(policy: PeftModel) -> None:
    branches = [(group, group.completions) for group in GROUPS]
    found = ReferenceColumn(reference_scorer(policy)).log_probabilities(branches)
    assert found.dtype == torch.float32
    with torch.no_grad():
        tuned, frozen = [], []
        for group, completions in branches:
            for c in completions:
                tuned.append(log_probability(policy, group.prompt.token_ids, c.token_ids).item())
                with policy.disable_adapter():
                    of_base = log_probability(policy, group.prompt.token_ids, c.token_ids)
                frozen.append(of_base.item())
    assert found.tolist() == pytest.approx(frozen, abs=1e-4)
    assert found.tolist() != pytest.approx(tuned, abs=0.05)


def test_is_computed_once_whatever_becomes_of_the_policy(policy: PeftModel) -> None:
    column = ReferenceColumn(reference_scorer(policy))
    branches = [(group, everything(group)) for group in column.place("p1", GROUPS)]
    first = column.log_probabilities(branches)
    stir(policy, seed=9)
    # Were a value computed again, a spoiled base model would show.
    for name, parameter in policy.named_parameters():
        if "lora_" not in name:
            parameter.data.zero_()
    assert torch.equal(column.log_probabilities(branches), first)


tokens = st.lists(st.integers(0, 9), min_size=1, max_size=3).map(tuple)
some_groups = st.lists(
    st.builds(a_group, tokens, st.lists(tokens), st.lists(tokens), st.lists(tokens).map(tuple)),
    min_size=1,
    max_size=4,
)


@pytest.mark.slow
@given(
    clients=st.lists(some_groups, min_size=1, max_size=3),
    calls=st.lists(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3)), max_size=4)),
    in_file=st.booleans(),
)
def test_nothing_is_computed_twice_and_every_bit_comes_back(
    tmp_path_factory: pytest.TempPathFactory,
    clients: list[list[Group]],
    calls: list[list[tuple[int, int]]],
    in_file: bool,
) -> None:
    scores = Scores()
    column = ReferenceColumn(scores, tmp_path_factory.getbasetemp() if in_file else None)
    distinct: dict[tuple[int, int], int] = {}
    for call in calls:
        branches = []
        for client, place in dict.fromkeys(call):
            if client < len(clients) and place < len(clients[client]):
                group = column.place(f"p{client}", clients[client])[place]
                branches.append((group, everything(group)))
                distinct[client, place] = len({c.token_ids for c in everything(group)})
        assert column.log_probabilities(branches).tolist() == expected(branches)
    assert len(scores.asked) == sum(distinct.values())


def test_a_group_without_a_row_is_computed_in_every_call() -> None:
    scores = Scores()
    column = ReferenceColumn(scores)
    for _ in range(2):
        column.log_probabilities([(GROUPS[1], GROUPS[1].completions)])
    assert len(scores.asked) == 4


def test_a_row_does_not_make_a_group_another() -> None:
    placed = ReferenceColumn(Scores()).place("p1", GROUPS)
    assert placed == GROUPS
    assert [group.row for group in placed] == [0, 5]


def test_the_file_has_no_name_and_belongs_to_its_owner_alone(tmp_path: Path) -> None:
    column = ReferenceColumn(Scores(), tmp_path)
    (_, second) = column.place("p1", GROUPS)
    column.log_probabilities([(second, second.completions)])
    assert list(tmp_path.iterdir()) == []
    status = os.fstat(column._file.fileno())
    assert (status.st_size, status.st_mode & 0o777) == (4 * 7, 0o600)


def test_what_the_place_is_to_blame_for_is_an_error(tmp_path: Path) -> None:
    column = ReferenceColumn(Scores(), tmp_path / "missing")
    first, _ = column.place("p1", GROUPS)
    with pytest.raises(RunError, match=f"cannot write .*missing: {os.strerror(errno.ENOENT)}"):
        column.log_probabilities([(first, first.completions)])


@pytest.mark.parametrize("wrong", [torch.zeros(1), torch.zeros(3), torch.zeros(2, 1)])
def test_refuses_a_score_of_another_shape(wrong: torch.Tensor) -> None:
    column = ReferenceColumn(lambda branches: wrong)
    with pytest.raises(ValueError, match="one value for each of 2 completions, got the shape"):
        column.log_probabilities([(GROUPS[1], GROUPS[1].completions)])
