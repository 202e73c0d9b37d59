import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pkgllm.errors import DataError
from pkgllm.evaluation.trie import CatalogueTrie

TERMINATOR = 0

catalogues = st.lists(
    # Three tokens, so that titles share beginnings, are prefixes of others, and repeat.
    st.lists(st.integers(1, 3), min_size=1, max_size=6).map(lambda title: [*title, TERMINATOR]),
    min_size=1,
    max_size=30,
)


def trie_of(sequences: list[list[int]], chunk_tokens: int = 512) -> CatalogueTrie:
    names = [f"film {column}" for column in range(len(sequences))]
    return CatalogueTrie(sequences, names=names, chunk_tokens=chunk_tokens)


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


@given(catalogues, st.data())
def test_a_chunk_attends_to_whole_paths_and_predicts_all_children(
    sequences: list[list[int]], data: st.DataObject
) -> None:
    trie = trie_of(sequences)
    # Any inputs in any three heaps, parents before children: earlier, carried, asked.
    heap_of = data.draw(
        st.lists(st.integers(0, 2), min_size=len(trie.inputs), max_size=len(trie.inputs)).map(
            np.array
        )
    )
    asked = trie.inputs[heap_of == 2]
    above = trie.ancestors(asked)
    earlier = above[heap_of[np.searchsorted(trie.inputs, above)] == 0]
    carried = np.setdiff1d(above, [*earlier, *asked])
    chunk = trie.chunk(asked, carried=carried, earlier=earlier)
    columns = np.concatenate([earlier, carried, asked])
    assert chunk.num_carried == len(carried)
    assert chunk.input_ids.tolist() == trie.tokens[[*carried, *asked]].tolist()
    for row, node in enumerate([*carried, *asked]):
        visible = sorted(columns[chunk.visible[row]].tolist())
        # The row's whole path, itself last: nothing missing, nothing else.
        assert trie.tokens[visible].tolist() == path(trie, int(node))
        assert chunk.depths[row] == len(visible) - 1
    children = [np.flatnonzero(trie.parents == node).tolist() for node in asked]
    assert chunk.child_nodes.tolist() == [child for group in children for child in group]
    assert chunk.child_tokens.tolist() == trie.tokens[chunk.child_nodes].tolist()
    assert np.diff(chunk.child_offsets).tolist() == [len(group) for group in children]
    assert (
        chunk.child_rows.tolist()
        == np.repeat(np.arange(len(asked)), np.diff(chunk.child_offsets)).tolist()
    )


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


def test_ancestors_are_found_once() -> None:
    # Nodes: 1, 1-2, 1-2-3, 1-2-3-0, 1-2-4, 1-2-4-0, 5, 5-0.
    trie = trie_of([[1, 2, 3, 0], [1, 2, 4, 0], [5, 0]])
    assert trie.ancestors(np.array([2, 4])).tolist() == [0, 1]
    assert trie.ancestors(np.array([3, 7])).tolist() == [0, 1, 2, 6]
    assert trie.ancestors(np.array([0, 6])).tolist() == []
    assert trie.ancestors(trie.first_nodes[:0]).tolist() == []


@pytest.mark.parametrize("nothing", [[], [0]])
def test_a_title_that_tokenises_to_nothing_is_named(nothing: list[int]) -> None:
    with pytest.raises(DataError, match="title 'Empty': a title must have at least one token"):
        CatalogueTrie([[1, 0], nothing], names=["Heat (1995)", "Empty"])


@pytest.mark.parametrize(
    ("names", "chunk_tokens", "message"),
    [
        (["a", "b"], 4, "got 1 titles and 2 names"),
        (["a"], 0, "chunk_tokens must be at least 1, got 0"),
    ],
)
def test_wrong_arguments_are_refused(names: list[str], chunk_tokens: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CatalogueTrie([[1, 0]], names=names, chunk_tokens=chunk_tokens)
