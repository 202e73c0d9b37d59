from collections.abc import Mapping, Sequence

from pkgllm.graph.public_facts import PublicFacts

FACTS: Mapping[str, Mapping[str, Sequence[str]]] = {
    "tt 1": {"director": ("Ann/Lee",), "genre": ("drama", "war"), "shot in": ("Écija",)},
    "tt 2": {"star": ("Ann/Lee",), "director": ("Ann/Lee",), "genre": ("war",)},
    "tt 3": {"shot in": ("Écija",)},
}


def test_paths_join_equal_values_over_any_two_relations() -> None:
    actual = PublicFacts(FACTS).between("tt 1", "tt 2")
    assert [(p.relation, p.value, p.other_relation) for p in actual] == [
        ("director", "Ann/Lee", "director"),
        ("director", "Ann/Lee", "star"),
        ("genre", "war", "genre"),
    ]
    assert {(p.one, p.other) for p in actual} == {("tt 1", "tt 2")}


def test_a_relation_of_ones_own_and_a_stranger() -> None:
    facts = PublicFacts(FACTS)
    (path,) = facts.between("tt 3", "tt 1")
    assert (path.relation, path.value, path.other_relation) == ("shot in", "Écija", "shot in")
    assert facts.between("tt 2", "tt 3") == facts.between("tt 2", "nobody's") == ()
    assert facts.between("tt 1", "tt 1") == ()
