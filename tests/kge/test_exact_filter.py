import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pkgllm.kge.exact_filter import ExactFilterer

LARGEST = (2**24 - 1, 2**15 - 1, 2**24 - 1)
entities = st.one_of(st.integers(0, 4), st.just(LARGEST[0]))
relations = st.one_of(st.integers(0, 2), st.just(LARGEST[1]))
triples = st.lists(st.tuples(entities, relations, entities), min_size=1, max_size=20)


@pytest.mark.slow
@given(known=triples, asked=triples)
def test_found_are_those_that_are_there(
    known: list[tuple[int, int, int]], asked: list[tuple[int, int, int]]
) -> None:
    contained = ExactFilterer(torch.tensor(known)).contains(torch.tensor(asked))
    assert contained.tolist() == [triple in known for triple in asked]


def test_batches_of_any_shape() -> None:
    filterer = ExactFilterer(torch.tensor([[0, 0, 1]]))
    batch = torch.from_numpy(np.indices((2, 2, 2)).reshape(3, 2, 4).transpose(1, 2, 0).copy())
    assert filterer(batch).shape == (2, 4)
    assert (~filterer(batch)).sum() == 1


def test_numbers_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"below 2\^24 and relations below 2\^15, got \[16777216"):
        ExactFilterer(torch.tensor([[2**24, 0, 0]]))
