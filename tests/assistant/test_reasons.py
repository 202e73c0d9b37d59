import pytest

from helpers.people import person, recommender_of
from pkgllm.assistant.reasons import give_reasons
from pkgllm.lm.base_model import BaseModel

ME = person({"1": "liked", "3": "disliked", "7": "seen", "5": "liked"})


@pytest.mark.slow
def test_changes_are_those_of_leaving_each_fact_out(tiny_base: BaseModel) -> None:
    recommender = recommender_of(tiny_base)
    actual = recommender.recommend(ME, "a comedy", k=3)
    for one, reasons in zip(actual, give_reasons(recommender, ME, actual, "a comedy"), strict=True):
        changes = {}
        for fact in ME.facts:
            without = recommender.recommend(
                ME.without({fact.tail}), "a comedy", k=100, known=ME.tails
            )
            (score,) = (other.log_probability for other in without if other.item == one.item)
            changes[fact.tail] = one.log_probability - score
        carrying = sorted((c for c in changes if changes[c] > 0), key=lambda c: -changes[c])[:3]
        assert [r.fact.tail for r in reasons.facts] == carrying
        total = sum(change for change in changes.values() if change > 0)
        for reason in reasons.facts:
            assert reason.change == pytest.approx(changes[reason.fact.tail], abs=1e-4)
            assert reason.share == pytest.approx(changes[reason.fact.tail] / total, abs=1e-3)


def test_paths_lead_from_ones_own_facts_through_public_ones(tiny_base: BaseModel) -> None:
    recommender = recommender_of(tiny_base)
    actual = recommender.recommend(ME, k=100)
    reasons = give_reasons(recommender, ME, actual)
    by_film = {one.item.id: why.paths for one, why in zip(actual, reasons, strict=True)}
    assert {(p.one, p.relation, p.value, p.other_relation) for p in by_film["4"]} == {
        ("3", "director", "Bo Ek", "director"),
        ("3", "genre", "horror", "genre"),
        ("5", "genre", "horror", "genre"),
    }
    assert {(p.one, p.relation, p.other_relation) for p in by_film["2"]} == {
        ("1", "director", "star"),
        ("5", "genre", "genre"),
    }
    assert by_film["8"] == ()


def test_a_fact_that_did_not_fit_is_no_reason(tiny_base: BaseModel) -> None:
    whole = len(recommender_of(tiny_base).prompt(ME).token_ids)
    recommender = recommender_of(tiny_base, max_tokens=whole - 1)
    actual = recommender.recommend(ME, k=8)
    assert recommender.prompt(ME).tails == {"1", "3", "5"}
    for why in give_reasons(recommender, ME, actual):
        assert all(reason.fact.tail != "7" for reason in why.facts)
    assert give_reasons(recommender, ME, ()) == ()
    empty = person({})
    (why,) = give_reasons(recommender, empty, recommender.recommend(empty, k=1))
    assert (why.facts, why.paths) == ((), ())
