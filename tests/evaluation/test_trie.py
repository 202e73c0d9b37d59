import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pkgllm.errors import DataError
from pkgllm.evaluation.ranking.trie import CatalogueTrie

TERMINATOR = 0

catalogues = st.lists(
    # Three tokens, so that titles share beginnings, are prefixes of others, and repeat.
    st.lists(st.integers(1, 3), min_size=1, max_size=6).map(lambda title: [*title, TERMINATOR]),
    min_size=1,
    max_size=30,
)


def trie_of(sequences: list[list[int]]) -> CatalogueTrie:
    return CatalogueTrie(sequences, names=[f"film {column}" for column in range(len(sequences))])


def path(trie: CatalogueTrie, node: int) -> list[int]:
    found: list[int] = []
    while node >= 0:
        found.insert(0, int(trie.tokens[node]))
        node = int(trie.parents[node])
    return found


@given(catalogues)
def test_every_column_ends_at_the_node_that_spells_its_title(sequences: list[list[int]]) -> None:
    trie = trie_of(sequences)
    assert [path(trie, int(node)) for node in trie.terminal_nodes] == sequences
    prefixes = {tuple(title[: end + 1]) for title in sequences for end in range(len(title))}
    assert len(trie) == len(prefixes)
    assert trie.longest_input == max(len(title) for title in sequences) - 1


@given(catalogues)
def test_the_first_nodes_are_what_titles_begin_with(sequences: list[list[int]]) -> None:
    trie = trie_of(sequences)
    tokens = trie.tokens[trie.first_nodes].tolist()
    assert tokens == sorted({title[0] for title in sequences})
    assert (trie.depths[trie.first_nodes] == 0).all()


@given(catalogues)
def test_inputs_by_depth_are_all_inputs_once_and_in_order(sequences: list[list[int]]) -> None:
    trie = trie_of(sequences)
    assert len(trie.inputs_by_depth) == trie.longest_input
    for depth, nodes in enumerate(trie.inputs_by_depth):
        assert (trie.depths[nodes] == depth).all()
        assert (np.diff(nodes) > 0).all()
    assert np.sort(np.concatenate(trie.inputs_by_depth)).tolist() == trie.inputs.tolist()


@given(catalogues)
def test_the_path_of_an_input_is_its_beginning_node_by_node(sequences: list[list[int]]) -> None:
    trie = trie_of(sequences)
    assert trie.paths.shape == (len(trie), trie.longest_input)
    for node in trie.inputs:
        depth = trie.depths[node]
        nodes, rest = trie.paths[node, : depth + 1], trie.paths[node, depth + 1 :]
        assert trie.tokens[nodes].tolist() == path(trie, int(node))
        assert trie.parents[nodes].tolist() == [-1, *nodes[:-1]]
        assert nodes[-1] == node
        assert (rest == -1).all()
    terminators = np.setdiff1d(np.arange(len(trie)), trie.inputs)
    assert (trie.paths[terminators] == -1).all()


@given(catalogues, st.data())
def test_children_stand_in_the_order_of_the_nodes_asked_for(
    sequences: list[list[int]], data: st.DataObject
) -> None:
    trie = trie_of(sequences)
    # Any nodes in any order, also terminators, which have none, and some of them twice.
    nodes = np.array(
        data.draw(st.lists(st.integers(0, len(trie) - 1), max_size=12)), dtype=np.int64
    )
    children, offsets = trie.children(nodes)
    assert offsets[0] == 0
    assert offsets[-1] == len(children)
    for place, node in enumerate(nodes):
        expected = np.flatnonzero(trie.parents == node).tolist()
        assert children[offsets[place] : offsets[place + 1]].tolist() == expected


@given(catalogues)
def test_inputs_are_all_nodes_but_the_terminators(sequences: list[list[int]]) -> None:
    trie = trie_of(sequences)
    assert trie.inputs.tolist() == np.flatnonzero(trie.tokens != TERMINATOR).tolist()


@given(catalogues)
def test_a_node_and_all_below_it_lie_together(sequences: list[list[int]]) -> None:
    trie = trie_of(sequences)
    paths = [path(trie, node) for node in range(len(trie))]
    for node, start in enumerate(paths):
        below = [other for other, found in enumerate(paths) if found[: len(start)] == start]
        assert below == list(range(node, int(trie.ends[node])))


@given(catalogues, st.data())
def test_the_nodes_that_lead_to_columns_spell_the_beginnings_of_their_titles(
    sequences: list[list[int]], data: st.DataObject
) -> None:
    trie = trie_of(sequences)
    columns = np.array([data.draw(st.booleans()) for _ in sequences])
    expected = {
        tuple(title[: end + 1])
        for title, chosen in zip(sequences, columns, strict=True)
        if chosen
        for end in range(len(title))
    }
    found = np.flatnonzero(trie.leads_to(columns))
    assert {tuple(path(trie, int(node))) for node in found} == expected
    assert len(found) == len(expected)


@pytest.mark.parametrize("nothing", [[], [0]])
def test_a_title_that_tokenises_to_nothing_is_named(nothing: list[int]) -> None:
    with pytest.raises(DataError, match="title 'Empty': a title must have at least one token"):
        CatalogueTrie([[1, 0], nothing], names=["Heat (1995)", "Empty"])


@pytest.mark.parametrize("names", [[], ["a", "b"]])
def test_every_title_needs_a_name(names: list[str]) -> None:
    with pytest.raises(ValueError, match=f"got 1 titles and {len(names)} names"):
        CatalogueTrie([[1, 0]], names=names)


def test_an_empty_catalogue_is_refused() -> None:
    with pytest.raises(ValueError, match="got 0 titles and 0 names"):
        CatalogueTrie([], names=[])
