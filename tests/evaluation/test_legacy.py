from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from pkgllm.corpora.catalogue import Catalogue, Item
from pkgllm.errors import DataError, LeakError
from pkgllm.evaluation.lists.legacy import leaky_graph, legacy_score
from pkgllm.evaluation.lists.lists import TitleLinker, read_list
from pkgllm.evaluation.lists.metrics import micro_list_metrics
from pkgllm.evaluation.scorer import ClientQueries, candidate_mask
from pkgllm.graph.personal_graph import Fact, Moment, PersonalGraph, Provenance, Relation
from pkgllm.prompts.audit import audit_prompt
from pkgllm.prompts.prompts import PromptWriter
from pkgllm.prompts.settings import PromptForm

SAID = Provenance("own_answer", "conversation/1")
CATALOGUE = Catalogue(
    [
        Item("1", "Umber Quarry (1971)"),
        Item("2", "Umber Quarry 2 (1974)"),
        Item("3", "Oven (1980)"),
        Item("4", "The Woven Basin (1999)"),
        Item("5", "Ledger"),
    ]
)

IDS = [item.id for item in CATALOGUE]


def honest(gold: str, text: str) -> dict[str, float]:
    found = read_list(text, TitleLinker(CATALOGUE), visible=(), k=10)
    return micro_list_metrics([found.items], [{gold}], k=10).values()


def test_a_sequel_counts_for_the_film_before_it() -> None:
    score = legacy_score([(["Umber Quarry (1971)"], "- Umber Quarry 2 (1974)")])
    assert (score.hits_at(1), score.precision, score.recall, score.f1) == (1, 1, 1, 1)
    assert honest("1", "- Umber Quarry 2 (1974)")["precision@10"] == 0


def test_a_short_title_counts_inside_a_word() -> None:
    score = legacy_score([(["Oven (1980)"], "- The WOVEN Basin (1999)")])
    assert (score.hits_at(1), score.precision) == (1, 1)
    assert honest("3", "- The WOVEN Basin (1999)")["precision@10"] == 0


def test_a_title_of_one_word_without_a_year_counts_for_every_line() -> None:
    score = legacy_score([(["Ledger"], "- Umber Quarry (1971)\n- Nothing of the kind")])
    assert (score.true_positives, score.precision, score.recall) == (2, 1, 2)
    assert honest("5", "- Umber Quarry (1971)\n- Nothing of the kind")["recall@10"] == 0


def test_duplicates_count_again_and_misses_become_negative() -> None:
    text = "- The Woven Basin (1999)\n" * 3 + "- Oven (1980)"
    score = legacy_score([(["The Woven Basin (1999)"], text)])
    assert (score.true_positives, score.num_goals, score.num_lines) == (3, 1, 4)
    assert (score.precision, score.recall) == (3 / 4, 3)
    assert honest("4", text) == pytest.approx(
        {"precision@10": 1 / 2, "recall@10": 1, "f1@10": 2 / 3}
    )


@pytest.mark.parametrize(
    "text",
    [
        "",
        "I would rather not say.",
        "Oven (1980)",
        "<think>\n- Oven (1980)\n- and so on",
        "<think>\n- Oven (1980)\n</think>\nI would rather not say.",
    ],
)
def test_an_answer_that_cannot_be_parsed_vanishes(text: str) -> None:
    answered = (["The Woven Basin (1999)"], "- Oven (1980)\n- The Woven Basin (1999)")
    alone, both = legacy_score([answered]), legacy_score([answered, (["Oven (1980)"], text)])
    assert (both.num_answers, both.num_scored) == (2, 1)
    assert (both.precision, both.recall, both.mrr) == (alone.precision, alone.recall, alone.mrr)
    assert both.hits_at(2) == 1
    assert both.num_goals == 1


def test_a_case_done_by_hand() -> None:
    answers = [
        # Both goals in one line of three: one true positive.
        (["Oven (1980)", "The Woven Basin (1999)"], "- Nettle\n* The Woven Basin\n3. Oboe"),
        (["Umber Quarry (1971)"], "Here:\n- Oboe\n- Nettle\n- Kettle\n- umber quarry"),
        (["Umber Quarry (1971)"], "<think>\n- Umber Quarry\n</think>\n- Oboe"),
        (["Umber Quarry (1971)"], "no list"),
    ]
    score = legacy_score(answers)
    assert (score.num_answers, score.num_scored, score.num_goals, score.num_lines) == (4, 3, 4, 8)
    assert score.true_positives == 2
    assert score.first_matches == (2, 4)
    assert [score.hits_at(k) for k in (1, 2, 3, 4, 10)] == [0, 1 / 3, 1 / 3, 2 / 3, 2 / 3]
    assert score.mrr == pytest.approx((1 / 2 + 1 / 4) / 3)
    assert (score.precision, score.recall, score.f1) == pytest.approx((2 / 8, 2 / 4, 1 / 3))


def test_bare_lines_count_where_they_are_asked_for() -> None:
    text = "Umber Quarry 2 (1974)\nOven (1980)"
    assert legacy_score([(["Oven (1980)"], text)]).num_scored == 0
    score = legacy_score([(["Oven (1980)"], text)], bullets_only=False)
    assert (score.num_scored, score.num_lines, score.first_matches) == (1, 2, (2,))


def test_no_parsable_answer_gives_zeros() -> None:
    score = legacy_score([(["Oven (1980)"], "")])
    assert (score.precision, score.recall, score.f1, score.mrr, score.hits_at(5)) == (0,) * 5


@pytest.mark.slow
@given(
    st.lists(
        st.tuples(
            st.sampled_from(IDS),
            st.lists(st.sampled_from(IDS), min_size=1, max_size=6, unique=True),
        ),
        min_size=1,
    )
)
def test_it_never_finds_less_than_an_honest_score(
    clients: list[tuple[str, list[str]]],
) -> None:
    score = legacy_score(
        [
            ([CATALOGUE[gold].name], "\n".join(f"- {CATALOGUE[item].name}" for item in listed))
            for gold, listed in clients
        ]
    )
    values = micro_list_metrics(
        [listed for _, listed in clients], [{gold} for gold, _ in clients], k=10
    ).values()
    assert score.precision >= values["precision@10"]
    assert score.recall >= values["recall@10"]
    assert score.hits_at(10) >= values["recall@10"]


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one answer must be given"):
        legacy_score([])
    with pytest.raises(ValueError, match="every answer must have a goal"):
        legacy_score([([], "- Oven (1980)")])


def fact(item: str, session: int, relation: Relation = "liked") -> Fact:
    return Fact(relation, item, CATALOGUE[item].name, Moment(session, 0), SAID)


VISIBLE = PersonalGraph("p1", (fact("1", 0), fact("2", 0, "seen")))
HELD_OUT = (fact("3", 1), fact("4", 2))


def test_the_leaky_graph_holds_the_answers_as_liked() -> None:
    leaky = leaky_graph(VISIBLE, HELD_OUT)
    assert (leaky.owner, leaky.facts) == ("p1", (*VISIBLE.facts, *HELD_OUT))
    assert {held.tail for held in leaky.with_relation("liked")} == {"1", "3", "4"}
    assert VISIBLE.tails == {"1", "2"}


@pytest.mark.parametrize("form", ["triples", "jsonld", "prose"])
def test_the_leak_audit_refuses_its_prompt(tiny_base_folder: Path, form: PromptForm) -> None:
    writer = PromptWriter(
        AutoTokenizer.from_pretrained(tiny_base_folder),
        form=form,
        instruction="",
        request="Recommend.",
        max_tokens=1000,
    )
    held_out = [held.tail for held in HELD_OUT]
    audit_prompt(writer.write(VISIBLE), held_out, CATALOGUE, place="test prompt")
    for item in held_out:
        with pytest.raises(LeakError, match="test prompt of client 'p1' holds the held-out item"):
            audit_prompt(
                writer.write(leaky_graph(VISIBLE, HELD_OUT)), [item], CATALOGUE, place="test prompt"
            )


def test_the_protocol_refuses_its_queries() -> None:
    held_out = tuple(held.tail for held in HELD_OUT)
    candidate_mask(CATALOGUE, ClientQueries("p1", True, VISIBLE, held_out))
    with pytest.raises(DataError, match="stands in the visible graph, so the answer is known"):
        candidate_mask(
            CATALOGUE, ClientQueries("p1", True, leaky_graph(VISIBLE, HELD_OUT), held_out)
        )


@pytest.mark.parametrize(
    ("held_out", "message"),
    [
        ((), "client 'p1': a held-out fact is needed, got none"),
        ((fact("3", 1, "disliked"),), "held-out facts must be liked, got 'disliked'"),
        ((fact("2", 1),), "an item has at most one fact, got two about '2'"),
    ],
)
def test_what_cannot_leak_is_refused(held_out: tuple[Fact, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        leaky_graph(VISIBLE, held_out)
