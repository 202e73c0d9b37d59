from pathlib import Path

import pytest

from pkgllm.errors import DataError
from pkgllm.objectives import OBJECTIVES
from pkgllm.prompts.group_store import GroupStore, GroupWriter
from pkgllm.prompts.groups import Completion, Group
from pkgllm.prompts.partition.stored import drop_unusable
from pkgllm.prompts.prompts import Prompt

PEOPLE = {"both": ["+-", "+"], "liked": ["++"], "disliked": ["-", "--"], "mixed": ["-", "-+"]}
"""Labels of the completions of each client's groups."""

USABLE = {
    "dpo": {"both": ["+-"], "mixed": ["-+"]},
    "sft": {"both": ["+-", "+"], "liked": ["++"], "mixed": ["-+"]},
    "kto": PEOPLE,
}


def store_of(path: Path, people: dict[str, list[str]]) -> GroupStore:
    with GroupWriter.create(path) as stored:
        for client, groups in people.items():
            prompt = Prompt(client, "", "Movies?", (5,), frozenset(), 0)
            stored.add(
                client,
                [
                    Group(
                        prompt,
                        tuple(
                            Completion(str(n), (3, 1), label == "+", "liked")
                            for n, label in enumerate(labels)
                        ),
                    )
                    for labels in groups
                ],
            )
    return GroupStore.open(path)


def labels_of(store: GroupStore) -> dict[str, list[str]]:
    return {
        client: ["".join("-+"[c.desirable] for c in group.completions) for group in groups]
        for client, groups in store.items()
    }


@pytest.mark.parametrize("name", USABLE)
def test_what_an_objective_cannot_learn_from_is_left_out_and_counted(
    tmp_path: Path, name: str
) -> None:
    store = store_of(tmp_path / "groups.arrow", PEOPLE)
    left, num_groups, num_clients = drop_unusable(store, OBJECTIVES[name]())
    assert labels_of(left) == USABLE[name]
    assert num_groups == 7 - sum(map(len, USABLE[name].values()))
    assert num_clients == 4 - len(USABLE[name])
    assert [path.name for path in tmp_path.iterdir()] == ["groups.arrow"]


def test_nothing_to_learn_from_is_an_error(tmp_path: Path) -> None:
    store = store_of(tmp_path / "groups.arrow", {"liked": ["+"], "disliked": ["-"]})
    with pytest.raises(DataError, match="the objective dpo can learn from: it needs a desirable"):
        drop_unusable(store, OBJECTIVES["dpo"]())
