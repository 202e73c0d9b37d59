import csv
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from pkgllm.corpora.redial_files import read_redial
from pkgllm.errors import RunError
from pkgllm.graph.personal_graph import Fact, Moment, Provenance, Relation
from pkgllm.lm.base_model import BaseModel, load_base_model
from pkgllm.prompts.prompts import write_facts
from pkgllm.prompts.settings import PromptForm
from pkgllm.randomness import stream
from pkgllm.shipped import small_world_folder
from tools.small_world import generate_small_world
from tools.small_world_model import (
    chances,
    draw_verdicts,
    fit,
    invent_films,
    invent_taste,
)
from tools.small_world_names import FIRST_WORDS, GENRES, SECOND_WORDS
from tools.small_world_text import (
    chat,
    public_documents,
    write_public_text,
    write_verdicts,
)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    generate_small_world(folder, seed=0)
    return folder


@pytest.fixture(scope="module")
def dialogues(world: Path) -> list[dict[str, Any]]:
    lines = (world / "redial" / "train_data.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def _bytes_by_name(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.slow
def test_same_seed_same_bytes_and_another_seed_another_world(world: Path, tmp_path: Path) -> None:
    generate_small_world(tmp_path / "again", seed=0)
    generate_small_world(tmp_path / "other", seed=1)
    first = _bytes_by_name(world)
    assert set(first) == {
        "redial/train_data.jsonl",
        "redial/movies_with_mentions.csv",
        "movie_kg/movies.json",
    }
    assert _bytes_by_name(tmp_path / "again") == first
    other = _bytes_by_name(tmp_path / "other")
    assert all(other[name] != content for name, content in first.items())


def test_shipped_files_are_what_the_generator_writes(world: Path) -> None:
    shipped = small_world_folder()
    for name, content in _bytes_by_name(world).items():
        assert (shipped / name).read_bytes() == content, name


@pytest.mark.slow
def test_shipped_base_answers_with_films_of_the_world() -> None:
    base = load_base_model(str(small_world_folder() / "base-tiny"), device="cpu")
    corpus = read_redial(small_world_folder() / "redial", movie_facts=None)
    prompts = [f"Recommend a {genre} movie." for genre in GENRES]
    genres_by_name = {item.name: item.facts.get("genre", ()) for item in corpus.catalogue}
    answers = [_answer(base, [{"role": "user", "content": prompt}]) for prompt in prompts]
    fitting = [
        genre in genres_by_name.get(name, ()) for genre, name in zip(GENRES, answers, strict=True)
    ]
    # One film in seven has a given genre, so guessing gets five of ten right once in a hundred.
    assert sum(fitting) >= 5, answers
    for form in get_args(PromptForm):
        facts = write_facts(corpus.graphs[0].facts[:10], form)
        messages = [
            {"role": "system", "content": facts},
            {"role": "user", "content": "Recommend movies to me."},
        ]
        assert _answer(base, messages) in genres_by_name


def test_shipped_base_is_small_and_knows_the_titles_in_few_tokens() -> None:
    base = load_base_model(str(small_world_folder() / "base-tiny"), device="cpu")
    assert 900_000 < base.model.num_parameters() < 1_200_000
    assert base.max_positions >= 1024
    lengths = [
        len(base.tokenizer(film.name, add_special_tokens=False)["input_ids"])
        for film in invent_films(0, 300)
    ]
    assert np.mean(lengths) < 6
    assert max(lengths) < 12
    files = [path for path in small_world_folder().rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 6_000_000


def _answer(base: BaseModel, messages: list[dict[str, str]]) -> str:
    text = base.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    prompt = base.tokenizer(text, return_tensors="pt", add_special_tokens=False)
    generate: Any = base.model.generate
    ids = generate(**prompt, max_new_tokens=20, do_sample=False)
    new = ids[0, prompt["input_ids"].shape[1] :]
    assert new[-1] == base.terminator_id
    return str(base.tokenizer.decode(new[:-1]))


def test_dialogues_have_the_keys_types_and_codes_of_redial(dialogues: list[dict[str, Any]]) -> None:
    message_ids = [m["messageId"] for d in dialogues for m in d["messages"]]
    assert len(set(message_ids)) == len(message_ids)
    for dialogue in dialogues:
        assert {key: type(value) for key, value in dialogue.items()} | {
            "respondentQuestions": dict,
            "initiatorQuestions": dict,
        } == {
            "movieMentions": dict,
            "respondentQuestions": dict,
            "messages": list,
            "conversationId": str,
            "respondentWorkerId": int,
            "initiatorWorkerId": int,
            "initiatorQuestions": dict,
        }
        assert dialogue["respondentWorkerId"] != dialogue["initiatorWorkerId"]
        mentions = dialogue["movieMentions"]
        assert all(re.fullmatch(r"\d{6}", film) for film in mentions)
        said = re.findall(r"@(\d+)", " ".join(m["text"] for m in dialogue["messages"]))
        assert set(said) == set(mentions)
        times = [m["timeOffset"] for m in dialogue["messages"]]
        assert times == sorted(times)
        for questions in (dialogue["initiatorQuestions"], dialogue["respondentQuestions"]):
            assert questions == [] or (isinstance(questions, dict) and questions)
            if questions:
                assert questions.keys() <= mentions.keys()
                for answer in questions.values():
                    assert list(answer) == ["suggested", "seen", "liked"]
                    assert answer["suggested"] in (0, 1)
                    assert {answer["seen"], answer["liked"]} <= {0, 1, 2}


def test_the_oddities_are_there(world: Path, dialogues: list[dict[str, Any]]) -> None:
    assert any(d["initiatorQuestions"] == [] and d["respondentQuestions"] for d in dialogues)
    assert any(d["respondentQuestions"] == [] and d["initiatorQuestions"] for d in dialogues)
    assert any(
        d["initiatorQuestions"] and d["initiatorQuestions"].keys() < d["movieMentions"].keys()
        for d in dialogues
    )
    assert sum(None in d["movieMentions"].values() for d in dialogues) == 1
    with (world / "redial" / "movies_with_mentions.csv").open(newline="") as file:
        names = [row["movieName"] for row in csv.DictReader(file)]
    folded = Counter(" ".join(name.split()) for name in names)
    assert sorted(folded.values())[-2:] == [1, 2]
    assert 20 < sum(name != " ".join(name.split()) for name in names) < 80
    facts = json.loads((world / "movie_kg" / "movies.json").read_text())
    assert len(names) - len(facts) == 2


def test_the_loader_reads_every_person_with_enough_likes(world: Path) -> None:
    corpus = read_redial(world / "redial", movie_facts=None)
    assert len(corpus.graphs) == 120
    assert len(corpus.catalogue) == 300
    likes = [len(graph.with_relation("liked")) for graph in corpus.graphs]
    verdicts = [len(graph.with_relation("liked", "disliked")) for graph in corpus.graphs]
    assert min(likes) >= 4
    assert 20 <= np.mean(verdicts) <= 40
    relations = Counter(fact.relation for graph in corpus.graphs for fact in graph.facts)
    assert set(relations) == set(get_args(Relation))
    sources = Counter(f.provenance.source for graph in corpus.graphs for f in graph.facts)
    assert 0 < sources["partner_answer"] < sources["own_answer"] / 10
    sessions = [max(fact.time.session for fact in graph.facts) + 1 for graph in corpus.graphs]
    assert min(sessions) == 3
    assert max(sessions) == 8
    assert set(corpus.catalogue.items[5].facts) == {"genre", "director", "writer", "star"}


@pytest.mark.slow
def test_later_likes_can_be_foreseen_from_earlier_ones_better_than_by_popularity(
    world: Path,
) -> None:
    corpus = read_redial(world / "redial", movie_facts=None)
    popularity = Counter(
        fact.tail for graph in corpus.graphs for fact in graph.with_relation("liked")[:-5]
    )

    def features(tail: str) -> set[str]:
        facts = corpus.catalogue[tail].facts
        return {value for name in ("genre", "director", "star") for value in facts.get(name, ())}

    shared, popular, asked = 0, 0, 0
    for graph in corpus.graphs:
        likes = graph.with_relation("liked")
        earlier, later = likes[:-5], likes[-5:]
        weights = Counter(value for fact in earlier for value in features(fact.tail))
        known = {fact.tail for fact in likes}
        others = [item.id for item in corpus.catalogue if item.id not in known]
        for fact in later:
            mine = sum(weights[value] for value in features(fact.tail))
            theirs = [sum(weights[value] for value in features(other)) for other in others]
            shared += sum(mine < score for score in theirs) < 10
            popular += sum(popularity[fact.tail] < popularity[o] for o in others) < 10
            asked += 1
    chance = 10 / 275
    assert popular / asked > 1.5 * chance
    assert shared / asked > 1.5 * popular / asked


def test_fit_adds_up_what_a_person_loves() -> None:
    films = invent_films(0, 50)
    taste = invent_taste(films, stream(0, "somebody"))
    film = next(film for film in films if len(film.genres) == 2)
    weights = [taste.genre_weights[genre] for genre in film.genres]
    # The best genre counts, a minded one is taken off, and each favourite is added.
    expected = (
        max(weights)
        + min(0.0, *weights)
        + (1.2 if film.director in taste.directors else 0)
        + 0.8 * len(taste.stars & set(film.stars))
        + (0.5 if film.decade == taste.decade else 0)
    )
    assert fit(films, taste)[films.index(film)] == pytest.approx(expected)
    assert chances(films, taste).sum() == pytest.approx(1)


def test_verdicts_follow_the_fit() -> None:
    films = invent_films(0, 300)
    fits: dict[str, list[float]] = {"liked": [], "disliked": []}
    for person in range(40):
        taste = invent_taste(films, stream(0, "person", person))
        suits = dict(zip((film.id for film in films), fit(films, taste), strict=True))
        verdicts = draw_verdicts(films, taste, 30, stream(0, "verdicts", person))
        assert len({verdict.film.id for verdict in verdicts}) == 30
        for verdict in verdicts:
            if verdict.relation in fits:
                fits[verdict.relation].append(suits[verdict.film.id])
    assert np.mean(fits["liked"]) > 1 > 0 > np.mean(fits["disliked"])


def test_words_are_distinct_so_titles_are() -> None:
    assert len(set(FIRST_WORDS)) == len(FIRST_WORDS)
    assert len(set(SECOND_WORDS)) == len(SECOND_WORDS)
    films = invent_films(3, 500)
    assert len({film.name for film in films}) == 499


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_films": 9}, f"num_films must be {len(GENRES)} to 3600, got 9"),
        ({"num_films": 3601}, f"num_films must be {len(GENRES)} to 3600, got 3601"),
        ({"num_people": 1}, "num_people must be at least 2, got 1"),
    ],
)
def test_impossible_worlds_are_refused(
    tmp_path: Path, change: dict[str, int], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        generate_small_world(tmp_path / "world", seed=0, **change)
    assert not (tmp_path / "world").exists()


@pytest.mark.slow
def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"cannot make .*file/world/redial"):
        generate_small_world(tmp_path / "file" / "world", seed=0)


def test_taste_documents_use_the_forms_that_prompts_use() -> None:
    said = Provenance("own_answer", "conversation/1")
    relations: tuple[Relation, ...] = ("liked", "seen", "liked", "disliked", "unseen", "suggested")
    facts = [
        Fact(relation, str(index), f"Zinc Ö{index} (1999)", Moment(0, index), said)
        for index, relation in enumerate(relations)
    ]
    for form in get_args(PromptForm):
        assert write_verdicts([(f.relation, f.name) for f in facts], form) == write_facts(
            facts, form
        )


def test_chat_is_what_the_chat_template_writes() -> None:
    assert chat(("user", "Hi"), ("assistant", "Ho")) == (
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHo<|im_end|>\n"
    )


@pytest.mark.slow
def test_public_text_tells_all_films_and_few_tastes() -> None:
    documents = list(public_documents(0, num_documents=3000, personal_share=0.1))
    assert documents == list(public_documents(0, num_documents=3000, personal_share=0.1))
    personal = [document for document in documents if "<|im_start|>system" in document]
    # 300 are expected; the standard deviation is 16, and a few people like nothing early enough.
    assert 240 < len(personal) < 360
    for mark in ("(user, liked, ", "The user liked: ", '"liked":[{"name":"'):
        assert sum(mark in document for document in personal) > 50
    text = "\n".join(documents)
    names = Counter(film.name for film in invent_films(0, 300))
    assert all(name in text for name in names)
    assert not any(
        "<|im_start|>system" in d for d in public_documents(0, num_documents=500, personal_share=0)
    )


@pytest.mark.slow
def test_an_answer_is_not_in_its_own_taste_document() -> None:
    for document in public_documents(0, num_documents=200, personal_share=1):
        *before, answer = document.split("<|im_start|>assistant\n")
        if "<|im_start|>system" in document:
            assert answer.removesuffix("<|im_end|>\n") not in "".join(before)


@pytest.mark.slow
def test_no_taste_document_is_a_clients_history(dialogues: list[dict[str, Any]]) -> None:
    """Two people share a few films by chance, but nobody's list is a client's."""
    liked_by_client: dict[int, set[str]] = {}
    for dialogue in dialogues:
        for film, answer in (dialogue["respondentQuestions"] or {}).items():
            if answer["liked"] == 1:
                liked_by_client.setdefault(dialogue["initiatorWorkerId"], set()).add(film)
    name_by_id = {film.id: film.name for film in invent_films(0, 300)}
    clients = [{name_by_id[film] for film in liked} for liked in liked_by_client.values()]
    for document in public_documents(0, num_documents=300, personal_share=1):
        listed = re.findall(r"\(user, liked, (.+? \(\d{4}\))", document)
        if len(listed) >= 10:
            assert max(len(client & set(listed)) for client in clients) < len(listed)


def test_public_text_is_written_as_documents(tmp_path: Path) -> None:
    path = write_public_text(tmp_path / "text", seed=0, num_documents=20)
    documents = [json.loads(line)["text"] for line in path.read_text().splitlines()]
    assert documents == list(public_documents(0, num_documents=20))


def test_a_share_beyond_one_is_refused() -> None:
    with pytest.raises(ValueError, match=r"personal_share must be between 0 and 1, got 1.5"):
        next(public_documents(0, personal_share=1.5))
