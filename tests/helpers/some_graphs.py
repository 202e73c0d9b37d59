"""Graphs of films that are numbered in order of time."""

from hypothesis import strategies as st

from pkgllm.corpora.catalogue import Catalogue, Item
from pkgllm.graph.personal_graph import RELATIONS, Fact, Moment, PersonalGraph, Provenance, Relation

SAID = Provenance("own_answer", "conversation/1")
NUM_ITEMS = 24
CATALOGUE = Catalogue([Item(f"{n:02}", f"Film {n:02}") for n in range(NUM_ITEMS)])


def a_fact(item: int, relation: Relation, session: int, position: int = 0) -> Fact:
    return Fact(relation, f"{item:02}", f"Film {item:02}", Moment(session, position), SAID)


def said(*relations: Relation) -> PersonalGraph:
    """One fact for each relation, in order of time, about the films 00, 01, ..."""
    return PersonalGraph(
        "p1", tuple(a_fact(n, relation, n) for n, relation in enumerate(relations))
    )


def liked(count: int) -> PersonalGraph:
    return PersonalGraph("p1", tuple(a_fact(n, "liked", n) for n in range(count)))


# Few moments, so that facts of the same moment occur.
graphs = st.builds(
    lambda facts: PersonalGraph("p1", tuple(facts)),
    st.lists(
        st.builds(
            a_fact,
            st.integers(0, NUM_ITEMS - 1),
            # Mostly verdicts, since only those are hidden.
            st.sampled_from(("liked", "liked", "disliked", *RELATIONS)),
            st.integers(0, 6),
            st.integers(0, 3),
        ),
        unique_by=lambda fact: fact.tail,
        max_size=NUM_ITEMS,
    ),
)
sizes = st.fixed_dictionaries(
    {
        "hidden_facts": st.integers(1, 9),
        "stride": st.integers(1, 9),
        "min_context": st.integers(0, 4),
        "max_groups": st.integers(0, 8),
    }
)
