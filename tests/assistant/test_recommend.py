from dataclasses import replace

import numpy as np
import pytest
import torch

from helpers.people import FILMS, person, recommender_of, writer_of
from pkgllm.assistant.guidance import Constraints
from pkgllm.errors import DataError
from pkgllm.lm.base_model import BaseModel

ME = person({"1": "liked", "3": "disliked"})


def by_one_pass_per_title(base: BaseModel, prompt_ids: tuple[int, ...], name: str) -> float:
    """The log-probability of a title and its terminator as transformers computes it."""
    completion = writer_of(base).completion_ids(name)
    ids = torch.tensor([[*prompt_ids, *completion]])
    with torch.inference_mode():
        log_probs = base.model(ids).logits[0].double().log_softmax(dim=-1)
    start = len(prompt_ids) - 1
    return sum(float(log_probs[start + at, token]) for at, token in enumerate(completion))


def test_the_best_titles_are_those_of_one_pass_per_title(tiny_base: BaseModel) -> None:
    recommender = recommender_of(tiny_base)
    constraints = Constraints(excluded=(("genre", "western"),))
    actual = recommender.recommend(ME, "something old", constraints, 3)
    prompt = recommender.prompt(ME, "something old", constraints)
    assert "Movies, please. something old Not genre western." in prompt.text
    scores = {
        film.id: by_one_pass_per_title(tiny_base, prompt.token_ids, film.name)
        for film in FILMS
        if film.id not in {"1", "3", "7"}
    }
    best = sorted(scores, key=scores.__getitem__, reverse=True)[:3]
    assert [one.item.id for one in actual] == best
    assert [one.log_probability for one in actual] == pytest.approx(
        [scores[film] for film in best], abs=1e-4
    )


def test_what_the_graph_speaks_of_is_never_recommended(tiny_base: BaseModel) -> None:
    recommender = recommender_of(tiny_base)
    graph = person({"1": "suggested", "2": "unseen"})
    # The same film under an id from elsewhere.
    elsewhere = replace(graph.facts[0], tail="tt9", name=FILMS["3"].name)
    graph = graph.only([*graph.facts, elsewhere])
    actual = recommender.recommend(graph, k=100, known={"4"})
    assert {one.item.id for one in actual} == {"5", "6", "7", "8"}


def test_a_new_film_needs_nothing_rebuilt(tiny_base: BaseModel) -> None:
    recommender = recommender_of(tiny_base)
    listed = person({"1": "liked"})
    graph = listed.only([replace(listed.facts[0], tail="new-1", name="Never Listed (2031)")])
    assert "Never Listed (2031)" in recommender.prompt(graph).text
    assert len(recommender.recommend(graph, k=100)) == len(FILMS)


@pytest.mark.parametrize(
    ("constraints", "left"),
    [
        (Constraints(required=(("genre", "Horror"),)), {"4", "5"}),
        (Constraints(required=(("genre", "horror"), ("genre", "comedy"))), {"5"}),
        (Constraints(excluded=(("genre", "horror"), ("genre", "drama"))), {"2", "7", "8"}),
        (Constraints(from_year=1990, to_year=1999), {"2", "6"}),
        (Constraints(required=(("person", "ann lee"),)), {"2", "6"}),
        (Constraints(required=(("star", "Ann Lee"),)), {"2"}),
        (Constraints(excluded=(("person", "Ann Lee"),), to_year=1990), {"4", "7"}),
    ],
)
def test_constraints_decide_what_competes(
    tiny_base: BaseModel, constraints: Constraints, left: set[str]
) -> None:
    actual = recommender_of(tiny_base).recommend(ME, constraints=constraints, k=100)
    assert {one.item.id for one in actual} == left


def test_a_constraint_that_removes_every_candidate_is_an_error(tiny_base: BaseModel) -> None:
    recommender = recommender_of(tiny_base)
    only = Constraints(required=(("genre", "western"),))
    with pytest.raises(DataError, match=r"of 8 items, 1 meet the constraints .Only genre western"):
        recommender.recommend(person({"7": "seen"}), constraints=only)
    with pytest.raises(DataError, match="0 meet the constraints"):
        recommender.recommend(ME, constraints=Constraints(from_year=2050))


def test_nobody_of_that_name_is_an_error_that_offers_spellings(tiny_base: BaseModel) -> None:
    only = Constraints(required=(("person", "Anne Lee"),))
    with pytest.raises(DataError, match=r"did you mean Ann Lee\?"):
        recommender_of(tiny_base).recommend(ME, constraints=only)


def test_a_graph_larger_than_the_prompt_is_cut_and_counted(tiny_base: BaseModel) -> None:
    graph = person({"7": "seen", "1": "liked", "2": "disliked", "3": "liked"})
    whole = len(recommender_of(tiny_base).prompt(graph).token_ids)
    recommender = recommender_of(tiny_base, max_tokens=whole - 1)
    prompt = recommender.prompt(graph)
    assert prompt.facts_left_out == 1
    assert prompt.tails == {"1", "2", "3"}
    # What did not fit is known all the same.
    assert "7" not in {one.item.id for one in recommender.recommend(graph, k=100)}


def test_a_request_that_fills_the_prompt_is_an_error(tiny_base: BaseModel) -> None:
    with pytest.raises(DataError, match="the request, which takes"):
        recommender_of(tiny_base, max_tokens=60).recommend(ME, "a comedy " * 40)


def test_log_probabilities_do_not_depend_on_what_is_asked_with_them(tiny_base: BaseModel) -> None:
    recommender = recommender_of(tiny_base)
    graphs = [person({film: "liked"}) for film in ("1", "2", "3")]
    items = [FILMS["8"], FILMS["4"]]
    together = recommender.log_probabilities(graphs, items)
    apart = [[recommender.log_probabilities([g], [i])[0, 0] for i in items] for g in graphs]
    assert together == pytest.approx(np.array(apart), abs=1e-4)
