import json
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from helpers.run_files import files_below, read_json
from helpers.tiny_corpus import FILMS, tiny_experiment
from pkgllm.config.schema import Experiment
from pkgllm.corpora.population import Population
from pkgllm.errors import DataError, LeakError, RunError
from pkgllm.graph.personal_graph import PersonalGraph
from pkgllm.lm.base_model import BaseModel, load_base_model
from pkgllm.pipeline.build import (
    build_groups,
    make_writer,
    partition_groups,
    partition_notes,
    populate,
    read_corpus,
)
from pkgllm.pipeline.evaluate import evaluate_run
from pkgllm.pipeline.train import train
from pkgllm.progress import Silent
from pkgllm.prompts.group_store import GroupStore
from pkgllm.prompts.groups import Group
from pkgllm.prompts.partition.dirichlet import Dirichlet
from pkgllm.prompts.partition.paired import matched
from pkgllm.prompts.partition.partition import count_labels, partition_note
from pkgllm.prompts.partition.redistributed import Redistributed
from pkgllm.prompts.prompts import Prompt, PromptWriter
from pkgllm.runs.folder import RunFolder
from pkgllm.runs.records import PartitionSummary

pytest_plugins = ["helpers.finished_runs"]

PARTITIONS: Mapping[str, dict[str, Any]] = {
    "by_client": {"name": "by_client"},
    "redistributed": {"name": "redistributed"},
    "paired": {"name": "paired"},
    "dirichlet": {"name": "dirichlet", "concentration": 0.5},
    "one_sided": {"name": "one_sided", "one_sided_share": 0.6},
}
Configure = Callable[..., Experiment]
Divide = Callable[[Experiment], tuple[GroupStore, dict[str, Any]]]


@pytest.fixture(scope="module")
def base(tiny_base_folder: Path) -> BaseModel:
    """For its tokenizer only."""
    return load_base_model(str(tiny_base_folder), device="cpu")


@pytest.fixture(scope="module")
def configure(data: Path, tiny_base_folder: Path) -> Configure:
    return lambda name, **sections: tiny_experiment(
        data, tiny_base_folder, partition=PARTITIONS[name], **sections
    )


@pytest.fixture
def divide(base: BaseModel, tmp_path: Path) -> Divide:
    """Lay out in an empty folder, in which only the store may be left."""

    def call(config: Experiment) -> tuple[GroupStore, dict[str, Any]]:
        path = tmp_path / "groups.arrow"
        store, summary = partition_groups(
            config, population_of(config), make_writer(config.prompt, base), path, Silent()
        )
        assert list(tmp_path.iterdir()) == [path]
        return store, summary

    return call


def population_of(config: Experiment) -> Population:
    return populate(config, read_corpus(config))


@pytest.fixture
def natural(
    configure: Configure, base: BaseModel, tmp_path_factory: pytest.TempPathFactory
) -> GroupStore:
    config = configure("by_client")
    return build_groups(
        config,
        population_of(config),
        make_writer(config.prompt, base),
        tmp_path_factory.mktemp("natural") / "groups.arrow",
        Silent(),
    )


def examples(groups: tuple[Group, ...]) -> Counter[tuple[Prompt, str]]:
    return Counter((g.prompt, c.item) for g in groups for c in g.completions)


@pytest.mark.parametrize("name", PARTITIONS)
def test_what_is_told_is_what_is_stored(configure: Configure, divide: Divide, name: str) -> None:
    store, summary = divide(configure(name))
    counts = [count_labels(groups) for groups in store.values()]
    shares = sorted(found.undesirable_share for found in counts)
    assert summary == {
        "name": name,
        "parameters": {key: value for key, value in PARTITIONS[name].items() if key != "name"},
        "clients": len(store),
        "clients_dropped": 10 - len(store),
        "groups": sum(map(store.num_groups, store)),
        "desirable": sum(found.desirable for found in counts),
        "undesirable": sum(found.undesirable for found in counts),
        "undesirable_share": {
            "min": shares[0],
            "median": (shares[len(shares) // 2] + shares[(len(shares) - 1) // 2]) / 2,
            "max": shares[-1],
        },
    }
    assert all(found.groups for found in counts)


@pytest.mark.parametrize("name", PARTITIONS)
def test_the_seed_decides(configure: Configure, divide: Divide, name: str) -> None:
    def content(seed: int) -> bytes:
        return divide(configure(name, seed=seed))[0].path.read_bytes()

    assert content(1) == content(1)
    assert content(1) != content(2)


@pytest.mark.parametrize("name", ["redistributed", "dirichlet", "one_sided"])
def test_the_seed_decides_the_partition_itself(
    configure: Configure, divide: Divide, name: str
) -> None:
    def labels(seed: int) -> list[list[bool]]:
        store, _ = divide(configure(name, seed=seed, clients={"unseen_share": 0.0}))
        return [[c.desirable for g in own for c in g.completions] for own in store.values()]

    # The labels of the groups that are cut or dealt are the same with every seed.
    assert labels(1) != labels(2)


def test_by_client_is_what_was_built(
    configure: Configure, divide: Divide, natural: GroupStore
) -> None:
    store, _ = divide(configure("by_client"))
    assert store.path.read_bytes() == natural.path.read_bytes()


@pytest.mark.parametrize("name", sorted(set(PARTITIONS) - {"redistributed"}))
def test_nothing_leaves_its_person(
    configure: Configure, divide: Divide, natural: GroupStore, name: str
) -> None:
    store, _ = divide(configure(name))
    assert set(store) <= set(natural)
    for client, groups in store.items():
        assert examples(groups) <= examples(natural[client])
        own = {completion for group in natural[client] for completion in group.completions}
        for group in groups:
            assert group.prompt.client == client
            assert own >= {*group.completions, *group.mismatched}


def test_redistribution_moves_every_example_to_somebody(
    configure: Configure, divide: Divide, natural: GroupStore
) -> None:
    store, summary = divide(configure("redistributed"))
    before = sum(map(examples, natural.values()), Counter[tuple[Prompt, str]]())
    assert sum(map(examples, store.values()), Counter[tuple[Prompt, str]]()) == before
    sizes = {store.num_groups(client) for client in store}
    assert max(sizes) - min(sizes) <= 1
    owners = {group.prompt.client for groups in store.values() for group in groups}
    assert owners == set(natural) == set(store)
    assert any(g.prompt.client != client for client, groups in store.items() for g in groups)
    assert partition_note(Redistributed(), PartitionSummary.model_validate(summary)).endswith(
        " Not private: examples of one person train on another's device."
    )


def test_pairs_of_every_client(configure: Configure, divide: Divide, natural: GroupStore) -> None:
    store, _ = divide(configure("paired"))
    assert store == {client: matched(groups) for client, groups in natural.items()}
    assert any(store[client] != natural[client] for client in natural)


def test_one_sided_clients_have_one_label_and_the_others_all(
    configure: Configure, divide: Divide, natural: GroupStore
) -> None:
    store, _ = divide(configure("one_sided"))
    # Six of ten clients, half of them on each side.
    shares = {client: count_labels(groups).undesirable_share for client, groups in store.items()}
    assert Counter(share if share in (0, 1) else None for share in shares.values()) == {
        0: 3,
        1: 3,
        None: 4,
    }
    assert all(store[client] == natural[client] for client in store if 0 < shares[client] < 1)


def test_shares_of_lopsided_clients_follow_the_concentration(
    configure: Configure, divide: Divide, natural: GroupStore
) -> None:
    def shares(concentration: float) -> list[float]:
        partition = {"name": "dirichlet", "concentration": concentration}
        config = Experiment.model_validate(
            {**configure("by_client").model_dump(), "partition": partition}
        )
        store, _ = divide(config)
        return [count_labels(groups).undesirable_share for groups in store.values()]

    counts = [count_labels(groups) for groups in natural.values()]
    mean = sum(found.undesirable for found in counts) / sum(found.examples for found in counts)
    assert all(abs(share - mean) < 0.1 for share in shares(1e6))
    assert {round(share) for share in shares(1e-3)} == {0, 1}
    assert all(min(share, 1 - share) < 0.01 for share in shares(1e-3))


class Leaky(PromptWriter):
    """Tells every client all of the catalogue's names."""

    def write(self, graph: PersonalGraph) -> Prompt:
        prompt = super().write(graph)
        return replace(prompt, text=f"{prompt.text} {'; '.join(FILMS.values())}")


@pytest.mark.parametrize("name", PARTITIONS)
def test_a_leak_is_found_before_anything_is_moved(
    configure: Configure, base: BaseModel, tmp_path: Path, name: str
) -> None:
    config = configure(name)
    writer = Leaky(
        base.tokenizer, form="prose", instruction="", request="Recommend.", max_tokens=400
    )
    with pytest.raises(LeakError, match="leak audit: the training prompt of client"):
        partition_groups(config, population_of(config), writer, tmp_path / "groups.arrow", Silent())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (
            "paired",
            "partition paired leaves no client with a group, because no group holds an undesirable "
            "completion; set groups.negatives.uniform to 1 or more",
        ),
        (
            "dirichlet",
            "partition dirichlet needs desirable and undesirable completions, got one label only; "
            "set groups.negatives.uniform to 1 or more",
        ),
    ],
)
def test_groups_without_undesirable_completions(
    configure: Configure, base: BaseModel, tmp_path: Path, name: str, said: str
) -> None:
    # One hidden fact is a liked one, since a group needs a like.
    config = configure(name, groups={"hidden_facts": 1, "negatives": {"known": 0, "uniform": 0}})
    with pytest.raises(DataError) as caught:
        partition_groups(
            config,
            population_of(config),
            make_writer(config.prompt, base),
            tmp_path / "groups.arrow",
            Silent(),
        )
    assert str(caught.value) == said
    assert list(tmp_path.iterdir()) == []


def test_clients_that_are_left_nothing_are_counted(configure: Configure, divide: Divide) -> None:
    config = configure(
        "one_sided",
        groups={"hidden_facts": 1, "negatives": {"known": 0, "uniform": 0}},
    )
    store, summary = divide(config)
    # Three of ten clients are to keep dislikes, and nobody has one.
    assert (len(store), summary["clients"], summary["clients_dropped"]) == (7, 7, 3)
    assert summary["undesirable"] == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", PARTITIONS)
def test_a_run_with_each_partition(configure: Configure, tmp_path: Path, name: str) -> None:
    config = configure(name)
    path = tmp_path / "run"
    report = train(config, path, Silent())
    summary = read_json(path / "partition.json")
    assert summary["name"] == name
    assert (summary["clients"], summary["clients_dropped"]) == (10, 0)
    # The private files of training are gone, hidden ones among them.
    assert not [file for file in files_below(path) if file.endswith((".arrow", ".tmp"))]
    notes = [note for note in report.notes if note.startswith("Partition: ")]
    expected = partition_note(config.partition, PartitionSummary.model_validate(summary))
    assert notes == ([] if name == "by_client" else [expected])
    assert read_json(path / "results.json")["notes"] == list(report.notes)
    moved = any("Not private" in note for note in report.notes)
    (privacy,) = (note for note in report.notes if note.startswith("Privacy: "))
    assert moved == ("so the run is not private" in privacy) == (name == "redistributed")
    (again,) = evaluate_run(path, Silent(), output=tmp_path / "again")
    assert again.notes == report.notes


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["centralized", "local"])
def test_a_partition_holds_in_every_mode(configure: Configure, tmp_path: Path, mode: str) -> None:
    config = configure("one_sided", mode={"name": mode, "rounds": 1})
    report = train(config, tmp_path / "run", Silent())
    assert any(
        note.startswith("Partition: one_sided (one_sided_share 0.6)") for note in report.notes
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("objective", "concentration"), [("sft", 1e-3), ("sft", 0.5), ("dpo", 0.5)]
)
def test_who_has_no_example_of_the_objective_is_left_out_and_counted(
    configure: Configure, tmp_path: Path, objective: str, concentration: float
) -> None:
    config = configure("dirichlet", objective={"name": objective})
    partition = Dirichlet(concentration=concentration)
    few = config.mode.model_copy(update={"cohort_size": 1, "rounds": 1})
    config = config.model_copy(update={"partition": partition, "mode": few})
    report = train(config, tmp_path / "run", Silent())
    summary = read_json(tmp_path / "run" / "partition.json")
    assert summary["unusable_groups"] > 0
    assert summary["undesirable_share"]["max"] < 1
    expected = f"{summary['unusable_groups']} groups and {summary['unusable_clients']} clients"
    assert any(expected in note for note in report.notes)
    (record,) = RunFolder.open(tmp_path / "run").read_metrics()
    assert record["update_norm"] > 0  # type: ignore[operator]


@pytest.mark.parametrize("content", [None, "{", "[]", '{"name": "paired"}'])
def test_a_partition_file_that_is_gone_or_damaged_is_told(
    configure: Configure, tmp_path: Path, content: str | None
) -> None:
    if content is not None:
        (tmp_path / "partition.json").write_text(content)
    with pytest.raises(RunError, match=r"partition\.json"):
        partition_notes(configure("paired"), tmp_path)
    # The natural partition needs no file, so runs from before there were partitions are read too.
    if content is None:
        assert partition_notes(configure("by_client"), tmp_path) == ()


def test_a_note_says_everything_of_all_clients_together() -> None:
    summary = {
        "name": "dirichlet",
        "parameters": {"concentration": 0.5},
        "clients": 9,
        "clients_dropped": 1,
        "groups": 30,
        "desirable": 70,
        "undesirable": 110,
        "undesirable_share": {"min": 0.0, "median": 0.625, "max": 1.0},
    }
    assert partition_note(
        Dirichlet(), PartitionSummary.model_validate_json(json.dumps(summary))
    ) == (
        "Partition: dirichlet (concentration 0.5); 9 clients, 1 dropped; 30 groups, 70 desirable "
        "and 110 undesirable examples; a client's share of undesirable ones: median 0.62, from "
        "0.00 to 1.00."
    )
