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


@given(catalogues, st.integers(1, 20))
def test_chunks_predict_every_node_once_and_attend_to_whole_paths(
    sequences: list[list[int]], chunk_tokens: int
) -> None:
    trie = trie_of(sequences, chunk_tokens)
    predicted = trie.first_nodes.tolist()
    for chunk in trie.chunks:
        predicted += chunk.child_nodes.tolist()
        assert len(chunk.input_ids) <= max(chunk_tokens, trie.longest_input)
        assert chunk.num_carried < len(chunk.input_ids)
        for row, depth in enumerate(chunk.depths):
            visible = np.flatnonzero(chunk.ancestors[row])
            # Depths 0, 1, ... of the row's own path, itself last: nothing missing, nothing else.
            assert chunk.depths[visible].tolist() == list(range(depth + 1))
            assert visible[-1] == row
        for place, node in enumerate(chunk.child_nodes):
            row = int(chunk.child_rows[place])
            assert chunk.child_offsets[row] <= place < chunk.child_offsets[row + 1]
            seen = chunk.input_ids[chunk.ancestors[row + chunk.num_carried]].tolist()
            assert [*seen, int(chunk.child_tokens[place])] == path(trie, int(node))
    assert sorted(predicted) == list(range(len(trie)))


@given(catalogues, st.integers(1, 20))
def test_terminators_are_never_fed(sequences: list[list[int]], chunk_tokens: int) -> None:
    for chunk in trie_of(sequences, chunk_tokens).chunks:
        assert TERMINATOR not in chunk.input_ids


@given(catalogues)
def test_path_sums_add_every_node_of_a_title(sequences: list[list[int]]) -> None:
    trie = trie_of(sequences)
    values = np.random.default_rng(0).normal(size=len(trie))
    expected = []
    for node in trie.terminal_nodes.tolist():
        total = 0.0
        while node >= 0:
            total += values[node]
            node = trie.parents[node]
        expected.append(total)
    np.testing.assert_allclose(trie.path_sums(values), expected, atol=1e-12)


def test_a_chunk_carries_the_ancestors_of_its_first_node() -> None:
    # Four inputs, depth first: 1, 1-2, 1-2-3, 1-2-4. Three fit, so the last one needs a second
    # chunk, which brings 1 and 1-2 along.
    trie = trie_of([[1, 2, 3, 0], [1, 2, 4, 0]], chunk_tokens=3)
    first, second = trie.chunks
    assert (first.input_ids.tolist(), first.num_carried) == ([1, 2, 3], 0)
    assert (second.input_ids.tolist(), second.num_carried) == ([1, 2, 4], 2)
    assert second.child_tokens.tolist() == [0]


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
