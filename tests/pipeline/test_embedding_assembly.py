from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from helpers.tiny_embeddings import EMBEDDINGS, tiny_embedding
from pkgllm.config import schema
from pkgllm.errors import ModelError
from pkgllm.kge.fold_in import FoldIn
from pkgllm.pipeline.build import populate, read_corpus
from pkgllm.pipeline.embeddings.assembly import make_choice, plan_embedding

pytest_plugins = ["helpers.finished_runs"]


def section(embedding: dict[str, Any]) -> schema.Embedding:
    tree = {"corpus": {"name": "small_world"}, "embedding": embedding}
    return schema.EmbeddingExperiment.model_validate(tree).embedding


@pytest.mark.parametrize("name", EMBEDDINGS)
def test_the_configuration_and_the_models_have_the_same_defaults(name: str) -> None:
    choice = make_choice(section({"name": name}))
    assert choice.name == name
    assert choice == type(choice)()


def test_so_has_the_fit_of_persons() -> None:
    assert FoldIn(**schema.FoldIn().model_dump()) == FoldIn()


@pytest.mark.parametrize("name", EMBEDDINGS)
def test_every_setting_arrives(name: str) -> None:
    default = make_choice(section({"name": name}))
    for field in fields(default):
        value = getattr(default, field.name)
        if isinstance(value, bool):
            changed: Any = not value
        elif isinstance(value, int | float):
            # Shares must stay below 1.
            changed = value / 2 if 0 < value < 1 else value + 1
        else:
            changed = {"epochs": 5, "decay_every": 3}
        found = make_choice(section({"name": name, field.name: changed}))
        if isinstance(changed, dict):
            changed = replace(value, **changed)
        assert found == replace(default, **{field.name: changed})


def test_the_names_of_stages_are_those_that_training_tells(data: Path) -> None:
    for name in EMBEDDINGS:
        config = tiny_embedding(data, name)
        stages = list(config.embedding.stages)
        assert stages == (["transe", "attention", "decoder"] if name == "kbgat" else [name])


def test_the_graph_holds_what_training_clients_train_on_and_nothing_else(data: Path) -> None:
    config = tiny_embedding(data)
    population = populate(config, read_corpus(config))
    graph = plan_embedding(config, population).graph
    assert sorted(graph.persons) == sorted(split.client for split in population.in_training)
    of_persons = graph.triples.triples[graph.triples.triples[:, 0] < len(graph.persons)]
    item = dict(zip(graph.items.tolist(), graph.catalogue, strict=True))
    name = {number: relation for relation, number in graph.relations.items()}
    client = {number: owner for owner, number in graph.persons.items()}
    found = {(client[h], name[r], item[t].id) for h, r, t in of_persons.tolist()}
    assert found == {
        (split.client, fact.relation, fact.tail)
        for split in population.in_training
        for fact in split.train_graph.facts
    }


def test_a_device_that_is_not_there_is_named_by_its_key(data: Path) -> None:
    config = tiny_embedding(data, training={"device": "tpu"})
    population = populate(config, read_corpus(config))
    with pytest.raises(ModelError, match=r"^training\.device must be auto, cpu, cuda or cuda:N"):
        plan_embedding(config, population)


def test_one_client_makes_a_graph(
    tmp_path: Path, make_dialogue: Callable[..., dict[str, Any]], write_redial: Callable[..., Path]
) -> None:
    films = {str(number): f"Film {number}" for number in range(5)}
    dialogue = make_dialogue(1, 1, dict.fromkeys(films, "liked"), names=films)
    write_redial(tmp_path, [dialogue], films)
    config = tiny_embedding(tmp_path / "redial")
    population = populate(config, read_corpus(config))
    assert len(plan_embedding(config, population).graph.persons) == 1
