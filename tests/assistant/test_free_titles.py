import pytest

from helpers.people import person, recommender_of
from pkgllm.assistant.free_titles import generated_catalogue
from pkgllm.lm.base_model import BaseModel


@pytest.mark.slow
def test_written_titles_are_ranked_exactly_and_none_is_known(tiny_base: BaseModel) -> None:
    recommender = recommender_of(tiny_base)
    graph = person({"1": "liked"})
    written = generated_catalogue(recommender, graph, "anything")
    again = generated_catalogue(recommender, graph, "anything")
    assert written.names == again.names
    first = written.names[0]
    without = generated_catalogue(recommender, graph, "anything", known=[first.upper()])
    assert first.casefold() not in {name.casefold() for name in without.names}
    actual = recommender.over(written).recommend(graph, "anything", k=5)
    scores = [one.log_probability for one in actual]
    assert scores == sorted(scores, reverse=True)
    best = recommender.over(written).log_probabilities([graph], written.items, "anything")
    assert scores[0] == pytest.approx(best.max(), abs=1e-4)
