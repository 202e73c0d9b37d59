from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pkgllm.evaluation.lists.constrained_decoding import ConstrainedList, TitleLists
from pkgllm.evaluation.ranking.trie import CatalogueTrie

TERMINATOR, SEPARATOR = 0, (4, 5)

catalogues = st.lists(
    # Three tokens, so that titles share beginnings, are prefixes of others, and repeat.
    st.lists(st.integers(1, 3), min_size=1, max_size=5).map(lambda title: [*title, TERMINATOR]),
    min_size=1,
    max_size=20,
)


def trie_of(sequences: Sequence[Sequence[int]]) -> CatalogueTrie:
    return CatalogueTrie(sequences, names=[str(column) for column in range(len(sequences))])


@pytest.mark.slow
@given(catalogues, st.integers(1, 6), st.data())
def test_a_walk_allows_just_what_leads_to_an_open_title(
    sequences: list[list[int]], k: int, data: st.DataObject
) -> None:
    trie = trie_of(sequences)
    columns = st.lists(st.booleans(), min_size=len(sequences), max_size=len(sequences))
    candidates = np.array(data.draw(columns.filter(any), label="candidates"))
    walk = ConstrainedList(trie, candidates, k=k, separator=SEPARATOR)
    open_titles = {tuple(sequences[column]) for column in np.flatnonzero(candidates)}
    num_titles = min(k, len(open_titles))
    fed: list[int] = []
    begun: list[int] = []
    while not walk.done:
        nodes = walk.allowed()
        if nodes is None:
            fed.append(walk.forced())
            continue
        expected = {t[len(begun)] for t in open_titles if list(t[: len(begun)]) == begun}
        assert sorted(trie.tokens[nodes].tolist()) == sorted(expected)
        node = data.draw(st.sampled_from(nodes.tolist()), label="node")
        begun.append(int(trie.tokens[node]))
        token = walk.take(node)
        if begun[-1] == TERMINATOR:
            open_titles.remove(tuple(begun))
            begun = []
        if token is not None:
            fed.append(token)
    assert len(walk.columns) == num_titles
    titles = [sequences[column] for column in walk.columns]
    for column, title in zip(walk.columns, titles, strict=True):
        sharing = [c for c in np.flatnonzero(candidates) if sequences[c] == title]
        assert column == sharing[0]
    assert len({tuple(title) for title in titles}) == num_titles
    text = [token for title in titles for token in (*title[:-1], *SEPARATOR)]
    assert fed == text[: -len(SEPARATOR)]


def test_each_row_of_a_batch_takes_its_best_allowed_token() -> None:
    # The titles 1 2, 1 3 and 2; token 9 is better than all and belongs to none.
    trie = trie_of([[1, 2, 0], [1, 3, 0], [2, 0]])
    walks = [
        ConstrainedList(trie, np.array(mask), k=k, separator=[7])
        for mask, k in (([True, True, True], 2), ([False, True, False], 3), ([True, True, True], 1))
    ]
    lists = TitleLists(trie, walks)

    def step(*best: Sequence[int]) -> list[int | None]:
        """Feed logits that put these tokens of each row below 9 in falling order."""
        logits = torch.full((3, 10), -5.0)
        logits[:, 9] = 99.0
        for row, tokens in enumerate(best):
            for place, token in enumerate(tokens):
                logits[row, token] = 10.0 - place
        return lists.write(logits)

    assert step([1], [2, 1], [2]) == [1, 1, 2]
    # In the last row the title is complete, and so is the list.
    assert step([3, 2], [2, 3], [0]) == [3, 3, None]
    assert step([0], [0], [1]) == [7, None, None]
    # 1 3 is listed: of its beginning only 1 2 is left.
    assert step([1, 2], [1], [1]) == [1, None, None]
    assert step([3, 2], [1], [1]) == [2, None, None]
    assert step([3], [1], [1]) == [None, None, None]
    assert [walk.columns for walk in walks] == [[1, 0], [1], [2]]


def test_the_first_of_equal_logits_is_taken() -> None:
    trie = trie_of([[2, 0], [1, 0], [3, 0]])
    walk = ConstrainedList(trie, np.ones(3, dtype=bool), k=1, separator=[7])
    assert TitleLists(trie, [walk]).write(torch.zeros(1, 10)) == [1]
