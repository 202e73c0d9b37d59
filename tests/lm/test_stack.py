from collections.abc import Iterator
from itertools import accumulate

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from helpers.tiny_lanes import random
from pkgllm.lm import projection
from pkgllm.lm.lanes.stack import Lanes

counts = st.lists(st.integers(0, 5), min_size=1, max_size=4)
widths = st.tuples(st.integers(1, 6), st.integers(1, 6))
layouts = st.sampled_from(["as they are", "columns of wider rows", "by columns"])


def laid_out(rows: Tensor, layout: str) -> Tensor:
    """Return the same numbers as they come from other places in memory."""
    if layout == "columns of wider rows":
        return torch.cat((rows, rows), dim=1)[:, : rows.shape[1]]
    return rows.t().contiguous().t() if layout == "by columns" else rows


@pytest.fixture(params=["onednn", "plain"], autouse=True, scope="module")
def path(request: pytest.FixtureRequest) -> Iterator[None]:
    """Both ways there are: a CPU takes the first where torch has it, a GPU the second."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "plain":
            patch.setattr(projection, "_ONEDNN", None)
        yield


def lanes_of(row_counts: list[int], *, batched: bool) -> tuple[Lanes, Tensor]:
    """Return lanes, and the lane of each row; batched ones are all as long as the first."""
    if batched:
        row_counts = [row_counts[0]] * len(row_counts)
    lanes = Lanes([0, *accumulate(row_counts)], batched=batched)
    of_row = torch.repeat_interleave(torch.arange(len(row_counts)), torch.tensor(row_counts))
    return lanes, of_row


@settings(deadline=None, max_examples=60)
@given(counts, widths, layouts, st.booleans(), st.booleans())
def test_each_row_meets_its_own_lanes_matrix(
    row_counts: list[int], width: tuple[int, int], layout: str, batched: bool, shared: bool
) -> None:
    lanes, of_row = lanes_of(row_counts, batched=batched)
    num_in, num_out = width
    assert len(lanes) == len(row_counts)
    assert lanes.num_rows == len(of_row)
    rows = laid_out(random(len(of_row), num_in), layout)
    stacked = random(1 if shared else len(lanes), num_out, num_in, seed=1)
    stacked = stacked.expand(len(lanes), -1, -1)
    total = random(len(of_row), num_out, seed=2)
    expected = torch.einsum("ri,roi->ro", rows, stacked[of_row])
    torch.testing.assert_close(lanes.product(rows, stacked), expected)
    total_before = total.clone()
    # Transposed, as on the way back.
    back = torch.einsum("ro,roi->ri", total, stacked[of_row])
    torch.testing.assert_close(lanes.product(total, stacked.mT), back)
    # The last, because the sum may be written into it.
    torch.testing.assert_close(lanes.add_product(total, rows, stacked), total_before + expected)


@settings(deadline=None, max_examples=60)
@given(counts, widths, layouts, st.booleans())
def test_outer_products_are_summed_lane_by_lane(
    row_counts: list[int], width: tuple[int, int], layout: str, batched: bool
) -> None:
    lanes, of_row = lanes_of(row_counts, batched=batched)
    left = laid_out(random(len(of_row), width[0]), layout)
    right = random(len(of_row), width[1], seed=1)
    by_row = torch.einsum("rm,rn->rmn", left, right)
    expected = torch.zeros(len(lanes), *width).index_add_(0, of_row, by_row)
    # A part of a longer vector for each lane, as gradients are.
    target = torch.full((len(lanes), 50), torch.nan)
    own = target[:, 3 : 3 + width[0] * width[1]].view(len(lanes), *width)
    lanes.write_outer(own, left, right)
    torch.testing.assert_close(own, expected, rtol=1e-5, atol=1e-5)
    assert int(target.isnan().sum()) == len(lanes) * (50 - width[0] * width[1])
