from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from helpers.tiny_corpus import CLIENTS, FILMS, tiny_experiment
from pkgllm.config import schema
from pkgllm.corpora.population import Population
from pkgllm.corpora.redial_files import read_redial
from pkgllm.corpora.small_world import SmallWorldCorpus
from pkgllm.errors import ConfigError, DataError, LeakError
from pkgllm.graph.personal_graph import PersonalGraph
from pkgllm.lm.base_model import BaseModel, load_base_model
from pkgllm.pipeline.build import (
    audit_queries,
    build_groups,
    check_room,
    make_queries,
    make_writer,
    populate,
    read_corpus,
)
from pkgllm.progress import Silent
from pkgllm.prompts.prompts import Prompt, PromptWriter
from pkgllm.prompts.settings import PromptSettings

pytest_plugins = ["helpers.finished_runs"]


@pytest.fixture(scope="module")
def base(tiny_base_folder: Path) -> BaseModel:
    """For its tokenizer only; nothing here changes it."""
    return load_base_model(str(tiny_base_folder), device="cpu")


@pytest.fixture(scope="module")
def config(data: Path, tiny_base_folder: Path) -> schema.Experiment:
    return tiny_experiment(data, tiny_base_folder)


@pytest.fixture(scope="module")
def population(config: schema.Experiment) -> Population:
    return populate(config, read_corpus(config))


def with_section(config: schema.Experiment, name: str, **changes: Any) -> schema.Experiment:
    section = getattr(config, name)
    changed = section.model_copy if hasattr(section, "model_copy") else None
    section = changed(update=changes) if changed else replace(section, **changes)
    return config.model_copy(update={name: section})


class Leaky(PromptWriter):
    """Adds a title to the prompt of one client."""

    victim: str
    title: str

    def write(self, graph: PersonalGraph) -> Prompt:
        prompt = super().write(graph)
        if graph.owner != self.victim:
            return prompt
        return replace(prompt, text=f"{prompt.text}{self.title}")


def leaky(config: schema.Experiment, base: BaseModel, victim: str, title: str) -> Leaky:
    choice = config.prompt
    writer = Leaky(
        base.tokenizer,
        form=choice.form,
        instruction=choice.instruction,
        request=choice.request,
        max_tokens=choice.max_tokens,
    )
    writer.victim, writer.title = victim, title
    return writer


def test_every_training_client_has_audited_groups_and_nobody_else(
    config: schema.Experiment, population: Population, base: BaseModel, tmp_path: Path
) -> None:
    writer = make_writer(config.prompt, base)
    groups = build_groups(config, population, writer, tmp_path / "groups.arrow", Silent())
    training = {split.client for split in population.in_training}
    # 20 % of twelve clients are two, rounded from 2.4.
    assert (len(population.splits), len(training)) == (12, 10)
    assert set(groups) == training
    assert groups == build_groups(config, population, writer, tmp_path / "again", Silent())
    assert groups.path.read_bytes() == (tmp_path / "again").read_bytes()
    for split in population.in_training:
        future = {fact.tail for fact in split.validation + split.test}
        for group in groups[split.client]:
            assert group.prompt.client == split.client
            assert not future & group.prompt.tails
            assert not any(FILMS[item] in group.prompt.text for item in future)
            sources = [completion.source for completion in group.completions]
            assert (sources.count("known"), sources.count("uniform")) == (1, 2)


def test_baselines_learn_from_what_training_clients_like_in_training_alone(
    population: Population,
) -> None:
    liked = [
        [fact.tail for fact in split.train_graph.facts if fact.relation == "liked"]
        for split in population.splits
        if split.seen_in_training
    ]
    assert population.liked_in_training() == liked
    # Ten liked films each; two are the test and one before them the validation.
    assert [len(items) for items in liked] == [7] * 10


@pytest.mark.parametrize("held_out", ["hidden", "validation", "test"])
def test_a_leak_in_a_training_prompt_names_client_film_and_place(
    config: schema.Experiment,
    population: Population,
    base: BaseModel,
    held_out: str,
    tmp_path: Path,
) -> None:
    honest_writer = make_writer(config.prompt, base)
    honest = build_groups(config, population, honest_writer, tmp_path / "honest", Silent())
    split = population.in_training[3]
    if held_out == "hidden":
        item = honest[split.client][0].completions[0].item
    else:
        item = getattr(split, held_out)[0].tail
    writer = leaky(config, base, split.client, FILMS[item])
    with pytest.raises(LeakError) as caught:
        build_groups(config, population, writer, tmp_path / "leaky", Silent())
    assert [path.name for path in tmp_path.iterdir()] == ["honest"]
    assert str(caught.value).startswith(
        f"leak audit: the training prompt of client {split.client!r} holds the held-out item "
        f"{FILMS[item]!r} (its name)"
    )


@pytest.mark.parametrize("part", ["test", "validation"])
def test_a_leak_in_an_evaluation_prompt_names_client_film_and_place(
    config: schema.Experiment, population: Population, base: BaseModel, part: str
) -> None:
    config = with_section(config, "evaluation", part=part)
    queries = make_queries(config, population)
    catalogue = population.corpus.catalogue
    query = queries[5]
    name = FILMS[query.held_out[-1]]
    assert audit_queries(queries, make_writer(config.prompt, base), catalogue, part) >= 0
    with pytest.raises(LeakError) as caught:
        audit_queries(queries, leaky(config, base, query.client, name), catalogue, part)
    assert str(caught.value).startswith(
        f"leak audit: the {part} prompt of client {query.client!r} holds the held-out item {name!r}"
    )


def test_the_future_of_an_unseen_client_is_audited_too(
    config: schema.Experiment, population: Population, base: BaseModel, tmp_path: Path
) -> None:
    queries = make_queries(config, population)
    unseen = next(query for query in queries if not query.seen_in_training)
    writer = leaky(config, base, unseen.client, FILMS[unseen.held_out[0]])
    # No training prompt is written for that client, so only the queries can tell.
    build_groups(config, population, writer, tmp_path / "groups.arrow", Silent())
    with pytest.raises(LeakError, match=f"test prompt of client '{unseen.client}'"):
        audit_queries(queries, writer, population.corpus.catalogue, "test")


def test_nobody_with_a_group_is_an_error(
    config: schema.Experiment, population: Population, base: BaseModel, tmp_path: Path
) -> None:
    impossible = with_section(config, "groups", min_context=100)
    writer = make_writer(config.prompt, base)
    with pytest.raises(DataError) as caught:
        build_groups(impossible, population, writer, tmp_path / "groups.arrow", Silent())
    assert list(tmp_path.iterdir()) == []
    assert str(caught.value) == (
        "no client has a training group: a group needs groups.min_context earlier facts and a "
        "liked fact to hide; lower groups.min_context or read more dialogues"
    )


def test_facts_that_do_not_fit_are_counted(
    config: schema.Experiment, population: Population, base: BaseModel
) -> None:
    queries, catalogue = make_queries(config, population), population.corpus.catalogue
    room = with_section(config, "prompt", max_tokens=900)
    assert audit_queries(queries, make_writer(room.prompt, base), catalogue, "test") == 0
    short = with_section(config, "prompt", max_tokens=200)
    writer = make_writer(short.prompt, base)
    expected = sum(len(q.graph.facts) - len(writer.write(q.graph).tails) for q in queries)
    assert audit_queries(queries, writer, catalogue, "test") == expected > 0


def test_queries_ask_for_what_is_held_out_from_what_is_earlier(
    config: schema.Experiment, population: Population
) -> None:
    queries = make_queries(config, population)
    assert [query.client for query in queries] == list(CLIENTS)
    for query, split in zip(queries, population.splits, strict=True):
        assert query.held_out == tuple(fact.tail for fact in split.test)
        assert query.seen_in_training == split.seen_in_training
        assert max(fact.time for fact in query.graph.facts) < split.test[0].time
    validation = make_queries(with_section(config, "evaluation", part="validation"), population)
    assert {len(query.held_out) for query in validation} == {1}


def test_a_limit_draws_clients_with_the_seed(
    config: schema.Experiment, population: Population
) -> None:
    limited = with_section(config, "evaluation", max_clients=5)
    drawn = [query.client for query in make_queries(limited, population)]
    assert drawn == [query.client for query in make_queries(limited, population)]
    assert len(drawn) == 5
    assert drawn == sorted(set(drawn))
    others = {
        tuple(q.client for q in make_queries(limited.model_copy(update={"seed": s}), population))
        for s in range(5)
    }
    assert len(others) > 1
    assert len(make_queries(limited, population, everybody=True)) == 12
    assert len(make_queries(with_section(config, "evaluation", max_clients=99), population)) == 12


def test_another_folder_is_all_unseen(config: schema.Experiment, data: Path) -> None:
    for folder in (data, data.parent):
        corpus = config.corpus.read_folder(folder, "latest")
        assert corpus.graphs == read_redial(data, movie_facts=None).graphs
        assert corpus.name == str(folder)
        others = populate(config, corpus, all_unseen=True)
        assert others.in_training == ()
        assert len(others.splits) == 12
    nowhere = data.parent / "movie_kg"
    with pytest.raises(DataError) as caught:
        config.corpus.read_folder(nowhere, "latest")
    assert str(caught.value) == (
        f"--data {nowhere}: must hold train_data.jsonl or redial/train_data.jsonl, has neither"
    )


def test_the_small_world_is_the_shipped_one_or_a_folder(
    config: schema.Experiment, data: Path
) -> None:
    shipped = read_corpus(config.model_copy(update={"corpus": SmallWorldCorpus()}))
    assert shipped.name == "small world"
    assert len(shipped.graphs) > 20
    own = SmallWorldCorpus(folder=str(data))
    assert len(read_corpus(config.model_copy(update={"corpus": own})).graphs) == 12


def test_prompt_and_title_must_fit_into_the_base_model(
    config: schema.Experiment, population: Population, base: BaseModel
) -> None:
    writer, catalogue = make_writer(config.prompt, base), population.corpus.catalogue
    longest = max(len(writer.completion_ids(name)) for name in FILMS.values())
    fits = replace(config.prompt, max_tokens=1024 - longest)
    check_room(fits, writer, base, catalogue)
    too_long = replace(config.prompt, max_tokens=1025 - longest)
    with pytest.raises(ConfigError) as caught:
        check_room(too_long, writer, base, catalogue)
    assert str(caught.value) == (
        f"prompt.max_tokens must be at most {1024 - longest}, because {base.name} has 1024 "
        f"positions and the longest title takes {longest}; got {1025 - longest}"
    )


def test_the_writer_does_what_the_configuration_says(base: BaseModel) -> None:
    choice = PromptSettings(
        form="triples", instruction="Be kind.", request="A comedy?", max_tokens=99
    )
    writer = make_writer(choice, base)
    assert (writer.form, writer.instruction) == ("triples", "Be kind.")
    assert (writer.request, writer.max_tokens) == ("A comedy?", 99)


def test_step_sizes() -> None:
    constant = schema.Training(learning_rate=0.5, schedule="constant")
    assert [constant.learning_rate_of(round_num, rounds=3) for round_num in (1, 2, 3)] == [0.5] * 3
    linear = schema.Training(learning_rate=0.6, schedule="linear")
    steps = [linear.learning_rate_of(round_num, rounds=3) for round_num in (1, 2, 3)]
    assert steps == pytest.approx([0.6, 0.4, 0.2])
