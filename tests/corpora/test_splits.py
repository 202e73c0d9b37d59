import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pkgllm.corpora.catalogue import Catalogue, Item
from pkgllm.corpora.clients import Corpus
from pkgllm.corpora.splits import Part, split_client, split_corpus, split_digest
from pkgllm.graph.personal_graph import RELATIONS, Fact, Moment, PersonalGraph, Provenance, Relation

SAID = Provenance("own_answer", "conversation/1")
PARTS: tuple[Part, ...] = ("validation", "test")

# Few moments, so that facts of the same moment occur, which ReDial never has.
graphs = st.builds(
    lambda facts: PersonalGraph("p1", tuple(facts)),
    st.lists(
        st.builds(
            lambda relation, tail, session, position: Fact(
                relation, str(tail), f"Film {tail}", Moment(session, position), SAID
            ),
            st.sampled_from(RELATIONS),
            st.integers(0, 60),
            st.integers(0, 6),
            st.integers(0, 4),
        ),
        unique_by=lambda fact: fact.tail,
        max_size=40,
    ),
).filter(lambda graph: bool(graph.with_relation("liked")))
shares = st.tuples(st.floats(0, 0.6), st.floats(0, 0.39))


def likes(count: int, owner: str = "p1") -> PersonalGraph:
    return PersonalGraph(
        owner,
        tuple(
            Fact("liked", f"{film:02}", f"Film {film}", Moment(film, 0), SAID)
            for film in range(count)
        ),
    )


@pytest.mark.parametrize(
    ("num_liked", "num_validation", "num_test"),
    [
        (1, 0, 1),  # .2 -> 0, but at least one; .1 -> 0
        (2, 0, 1),
        (5, 0, 1),  # 1.0; .5 -> 0, the even number
        (6, 1, 1),  # 1.2 -> 1; .6 -> 1
        (8, 1, 2),  # 1.6 -> 2; .8 -> 1
        (10, 1, 2),
        (15, 2, 3),  # 3.0; 1.5 -> 2, the even number
        (43, 4, 9),  # 8.6 -> 9; 4.3 -> 4
    ],
)
def test_shares_of_the_last_likes_are_held_out(
    num_liked: int, num_validation: int, num_test: int
) -> None:
    graph = likes(num_liked)
    split = split_client(graph, test_share=0.2, validation_share=0.1, seen_in_training=True)
    assert split.test == graph.facts[num_liked - num_test :]
    first_test = num_liked - num_test
    assert split.validation == graph.facts[first_test - num_validation : first_test]
    assert split.train_graph.facts == graph.facts[: first_test - num_validation]


def test_validation_takes_no_more_than_the_test_leaves() -> None:
    graph = likes(2)
    # .05 * 2 -> 0, but the test has at least one; .9 * 2 -> 2, but one is left
    split = split_client(graph, test_share=0.05, validation_share=0.9, seen_in_training=True)
    assert (split.validation, split.test) == (graph.facts[:1], graph.facts[1:])
    assert split.train_graph.facts == ()


def test_everything_said_after_the_first_held_out_like_is_hidden_whatever_it_is() -> None:
    relations: tuple[Relation, ...] = (
        "liked",
        "disliked",
        "liked",
        "seen",
        "liked",
        "unseen",
        "liked",
        "suggested",
    )
    said = [
        Fact(relation, str(time), f"Film {time}", Moment(0, time), SAID)
        for time, relation in enumerate(relations, 1)
    ]
    graph = PersonalGraph("p1", tuple(said))
    # four likes, at 1, 3, 5 and 7: one for the test (.3 * 4 -> 1), one for validation
    split = split_client(graph, test_share=0.3, validation_share=0.3, seen_in_training=False)
    assert split.client == "p1"
    assert not split.seen_in_training
    assert split.held_out("test") == (said[6],)
    assert split.held_out("validation") == (said[4],)
    assert split.train_graph.facts == tuple(said[:4])
    assert split.visible_graph("validation").facts == tuple(said[:4])
    assert split.visible_graph("test").facts == tuple(said[:6])


@given(graphs, shares)
def test_nothing_visible_is_as_late_as_what_is_asked_for(
    graph: PersonalGraph, share: tuple[float, float]
) -> None:
    split = split_client(
        graph, test_share=share[0], validation_share=share[1], seen_in_training=True
    )
    for part in PARTS:
        for hidden in split.held_out(part):
            visible = split.visible_graph(part)
            assert hidden.tail not in visible.tails
            assert all(fact.time < hidden.time for fact in visible.facts)
            assert hidden.tail not in split.train_graph.tails
            assert all(fact.time < hidden.time for fact in split.train_graph.facts)
    assert set(split.train_graph.facts) <= set(split.visible_graph("validation").facts)
    assert set(split.visible_graph("validation").facts) <= set(split.visible_graph("test").facts)


@given(graphs, shares)
def test_the_held_out_facts_are_the_last_likes(
    graph: PersonalGraph, share: tuple[float, float]
) -> None:
    split = split_client(
        graph, test_share=share[0], validation_share=share[1], seen_in_training=True
    )
    liked = graph.with_relation("liked")
    held_out = split.validation + split.test
    assert held_out == liked[len(liked) - len(held_out) :]
    assert len(split.test) == (max(1, round(share[0] * len(liked))) if share[0] else 0)
    assert split == split_client(
        PersonalGraph("p1", graph.facts[::-1]),
        test_share=share[0],
        validation_share=share[1],
        seen_in_training=True,
    )


def test_with_a_test_share_of_0_everything_is_trained_on_but_the_validation() -> None:
    split = split_client(likes(10), test_share=0, validation_share=0, seen_in_training=True)
    assert split.train_graph == split.graph == split.visible_graph("test")
    assert (split.validation, split.test) == ((), ())
    split = split_client(likes(10), test_share=0, validation_share=0.2, seen_in_training=True)
    assert [fact.tail for fact in split.validation] == ["08", "09"]
    assert split.test == ()
    assert split.train_graph == split.visible_graph("validation") == likes(8)


def test_a_client_without_likes_cannot_be_split() -> None:
    graph = PersonalGraph("p9", (Fact("seen", "1", "Film 1", Moment(0, 0), SAID),))
    with pytest.raises(
        ValueError, match=r"client p9: a liked fact is needed to hold out, got none"
    ):
        split_client(graph, test_share=0.2, validation_share=0.1, seen_in_training=True)


@pytest.mark.parametrize(("test_share", "validation_share"), [(0.5, 0.5), (-0.1, 0.2), (0.2, -1)])
def test_impossible_shares_are_refused(test_share: float, validation_share: float) -> None:
    with pytest.raises(ValueError, match=rf"got {test_share} and {validation_share}"):
        split_client(
            likes(5),
            test_share=test_share,
            validation_share=validation_share,
            seen_in_training=True,
        )


CORPUS = Corpus("invented", Catalogue([Item("1", "A")]), (likes(5, "b"), likes(9, "a")), {})


def test_unseen_clients_are_marked() -> None:
    splits = split_corpus(CORPUS, test_share=0.2, validation_share=0.1, unseen=frozenset({"b"}))
    assert [(split.client, split.seen_in_training) for split in splits] == [
        ("a", True),
        ("b", False),
    ]


def test_an_unseen_client_must_be_of_the_corpus() -> None:
    with pytest.raises(ValueError, match=r"must be of the corpus invented, got \['z'\]"):
        split_corpus(CORPUS, test_share=0.2, validation_share=0.1, unseen=frozenset({"a", "z"}))


def test_the_digest_tells_any_two_splits_apart_but_not_their_order() -> None:
    splits = split_corpus(CORPUS, test_share=0.2, validation_share=0.1, unseen=frozenset())
    digest = split_digest(splits)
    assert digest == split_digest(splits[::-1])
    assert len(digest) == 64
    first = splits[0]
    fact = first.graph.facts[0]
    others = [
        dataclasses.replace(first, seen_in_training=False),
        dataclasses.replace(first, validation=()),
        dataclasses.replace(first, test=first.test[1:]),
        *(
            dataclasses.replace(first, graph=first.graph.only((changed, *first.graph.facts[1:])))
            for changed in (
                dataclasses.replace(fact, relation="seen"),
                dataclasses.replace(fact, name="other"),
                dataclasses.replace(fact, time=Moment(0, 1)),
                dataclasses.replace(fact, provenance=Provenance("partner_answer", "x")),
            )
        ),
    ]
    digests = {split_digest((other, splits[1])) for other in others}
    assert len(digests | {digest}) == len(others) + 1
