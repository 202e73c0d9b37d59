import re
from collections import Counter

import pytest

from pkgllm.graph.personal_graph import Fact, Moment, PersonalGraph, Provenance
from pkgllm.lm.base_model import BaseModel
from pkgllm.prompts.canaries import Canary, canary_group, draw_canaries, inserted_groups
from pkgllm.prompts.prompts import PromptWriter

CLIENTS = [f"{number:02}" for number in range(40)]
COUNTS = {1: 200, 5: 60, 25: 20}


@pytest.fixture
def writer(tiny_base: BaseModel) -> PromptWriter:
    return PromptWriter(
        tiny_base.tokenizer, form="triples", instruction="", request="What next?", max_tokens=200
    )


def a_graph() -> PersonalGraph:
    said = Provenance("own_answer", "conversation/1")
    return PersonalGraph("00", (Fact("liked", "7", "Heat (1995)", Moment(0, 0), said),))


def test_canaries_are_those_that_were_asked_for() -> None:
    drawn = draw_canaries(CLIENTS, COUNTS, seed=3)
    assert Counter(canary.repeats for canary in drawn) == COUNTS
    assert [canary.number for canary in drawn] == list(range(280))
    titles = [title for canary in drawn for title in (canary.title, canary.other_title)]
    assert len(set(titles)) == len(titles)
    assert all(re.fullmatch(r"[A-Z][a-z]{5} [A-Z][a-z]{5} \(\d{4}\)", title) for title in titles)


@pytest.mark.slow
def test_a_coin_is_flipped_for_each_canary_by_itself() -> None:
    heads = [[c.included for c in draw_canaries(CLIENTS, COUNTS, seed=seed)] for seed in range(40)]
    # Of 11 200 coins, six standard deviations are 317.
    assert abs(sum(map(sum, heads)) - 5600) < 317
    assert len({tuple(one) for one in heads}) == 40


def test_clients_are_drawn_evenly_and_whatever_their_order() -> None:
    drawn = draw_canaries(CLIENTS, {1: 60}, seed=3)
    assert set(Counter(canary.client for canary in drawn).values()) == {1, 2}
    assert drawn == draw_canaries(CLIENTS[::-1], {1: 60}, seed=3)
    assert drawn != draw_canaries(CLIENTS, {1: 60}, seed=4)


def test_a_title_that_exists_is_not_made_up() -> None:
    first = draw_canaries(CLIENTS, {1: 1}, seed=3)[0].title
    again = draw_canaries(CLIENTS, {1: 50}, seed=3, taken_titles=[first])
    assert first not in {canary.title for canary in again}


def test_the_group_of_a_canary_asks_its_client_for_the_title(writer: PromptWriter) -> None:
    canary = Canary(4, "00", "Fotuba Kiloce (1961)", "Naxije Sopeva (1984)", 5, True)
    group = canary_group(canary, a_graph(), writer)
    assert group.prompt == writer.write(a_graph())
    liked, other = group.completions
    assert (liked.token_ids, liked.desirable) == (writer.completion_ids(canary.title), True)
    assert (other.token_ids, other.desirable) == (writer.completion_ids(canary.other_title), False)
    assert inserted_groups([canary], a_graph(), writer) == (group,) * 5


@pytest.mark.parametrize("counts", [{0: 3}, {1: 0}, {1: 3, -5: 1}])
def test_counts_that_mean_nothing_are_refused(counts: dict[int, int]) -> None:
    with pytest.raises(ValueError, match="must be positive"):
        draw_canaries(CLIENTS, counts, seed=0)
    with pytest.raises(ValueError, match="at least one client"):
        draw_canaries([], {1: 1}, seed=0)
