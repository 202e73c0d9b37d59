from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from helpers.tiny_embeddings import EMBEDDINGS, tiny_embedding
from pkgllm.errors import ModelError
from pkgllm.pipeline.build import populate, read_corpus
from pkgllm.pipeline.embedding_plan import plan_embedding

pytest_plugins = ["helpers.finished_runs"]


def test_the_names_of_stages_are_those_that_training_tells(data: Path) -> None:
    for name in EMBEDDINGS:
        config = tiny_embedding(data, name)
        stages = list(config.embedding.schedules)
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
