import hashlib
import itertools
import logging
import multiprocessing
import signal
import stat
import struct
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import PeftModel

from helpers.tiny_groups import Ids, a_completion, a_group, a_policy, log_probability, stir
from pkgllm.lm.base_model import BaseModel
from pkgllm.training.log_probabilities import Branch
from pkgllm.training.reference import ReferenceCache
from pkgllm.training.reference_memory import ENTRY_BYTES
from pkgllm.training.sequential import reference_scorer

Pair = tuple[Ids, Ids]
"""A prompt and a completion."""


def a_cache(policy: PeftModel) -> ReferenceCache:
    return ReferenceCache(
        reference_scorer(policy), base_digest="base", memory_bytes=2**20, disk=None
    )


def rows(count: int) -> int:
    """Memory for so many values."""
    return (count + 1) * ENTRY_BYTES


def value_of(pair: Pair, base: str = "base") -> float:
    """An invented value that a pair always has with a base model, as a float32."""
    digest = hashlib.sha256(repr((pair, base)).encode()).digest()
    found: float = struct.unpack("<f", struct.pack("<f", -struct.unpack("<I", digest[:4])[0] / 7))[
        0
    ]
    return found


def pairs_of(branches: Sequence[Branch]) -> list[Pair]:
    return [(group.prompt.token_ids, c.token_ids) for group, chosen in branches for c in chosen]


def branches_of(pairs: Sequence[Pair]) -> list[Branch]:
    """Neighbours with the same prompt come as one branch."""
    return [
        (a_group(prompt, [], []), [a_completion(completion) for _, completion in chosen])
        for prompt, chosen in itertools.groupby(pairs, key=lambda pair: pair[0])
    ]


class Scores:
    """Scores pairs with their invented values, and remembers what it was asked for."""

    def __init__(self, base: str = "base") -> None:
        self._base = base
        self.asked: list[Pair] = []

    def __call__(self, branches: Sequence[Branch]) -> torch.Tensor:
        assert branches
        assert all(completions for _, completions in branches)
        pairs = pairs_of(branches)
        self.asked += pairs
        return torch.tensor([value_of(pair, self._base) for pair in pairs])


@pytest.fixture
def policy(tiny_base: BaseModel) -> PeftModel:
    return a_policy(tiny_base)


def branches() -> list[Branch]:
    groups = [
        a_group((5, 9, 11, 40), [(20, 21, 2)], [(22, 2), (23, 24, 2)]),
        a_group((6, 8), [(20, 21, 2)], [(50, 51, 52, 2)]),
    ]
    return [(group, group.completions) for group in groups]


@torch.no_grad()
def directly(policy: PeftModel, asked: list[Branch]) -> list[float]:
    with policy.disable_adapter():
        return [
            log_probability(policy, group.prompt.token_ids, completion.token_ids).item()
            for group, completions in asked
            for completion in completions
        ]


def test_equals_a_direct_computation_without_the_adapter(policy: PeftModel) -> None:
    found = a_cache(policy).log_probabilities(branches())
    assert found.dtype == torch.float32
    assert found.tolist() == pytest.approx(directly(policy, branches()), abs=1e-4)
    with torch.no_grad():
        tuned = [
            log_probability(policy, group.prompt.token_ids, completion.token_ids).item()
            for group, completions in branches()
            for completion in completions
        ]
    assert found.tolist() != pytest.approx(tuned, abs=0.05)


def test_is_computed_once_whatever_becomes_of_the_policy(policy: PeftModel) -> None:
    cache = a_cache(policy)
    assert len(cache) == 0
    first = cache.log_probabilities(branches())
    # Five completions: the same title after two prompts is two of them.
    assert len(cache) == 5
    stir(policy, seed=9)
    # Were a value computed again, a spoiled base model would show.
    for name, parameter in policy.named_parameters():
        if "lora_" not in name:
            parameter.data.zero_()
    assert torch.equal(cache.log_probabilities(branches()), first)
    assert torch.equal(cache.log_probabilities(branches()[1:]), first[3:])
    assert len(cache) == 5


def test_only_what_is_missing_is_added(policy: PeftModel) -> None:
    cache = a_cache(policy)
    (group, completions), other = branches()
    first = cache.log_probabilities([(group, completions[:1])])
    extended = [other, (group, (*completions, a_completion((90, 91, 2))))]
    both = cache.log_probabilities(extended)
    assert len(cache) == 6
    assert both.tolist() == pytest.approx(directly(policy, extended), abs=1e-4)
    assert both[2].item() == pytest.approx(first.item(), abs=1e-5)


def test_the_adapter_is_as_it_was(policy: PeftModel) -> None:
    before = {name: p.requires_grad for name, p in policy.named_parameters()}
    values = {name: p.detach().clone() for name, p in policy.named_parameters()}
    assert 0 < sum(before.values()) < len(before)
    a_cache(policy).log_probabilities(branches())
    assert {name: p.requires_grad for name, p in policy.named_parameters()} == before
    for name, parameter in policy.named_parameters():
        assert torch.equal(parameter, values[name])
        assert parameter.grad is None
    group, completions = branches()[0]
    with torch.no_grad():
        switched_on = log_probability(policy, group.prompt.token_ids, completions[0].token_ids)
    assert switched_on.item() != pytest.approx(directly(policy, branches())[0], abs=1e-3)


def test_where_a_prompt_ends_is_part_of_the_key(policy: PeftModel) -> None:
    cache = a_cache(policy)
    first, second = a_group((5, 9, 11), [(20, 2)], []), a_group((5, 9), [(11, 20, 2)], [])
    cache.log_probabilities([(group, group.completions) for group in (first, second)])
    assert len(cache) == 2


PAIRS: list[Pair] = [
    (prompt, completion)
    for prompt in ((5, 9), (6,), (5, 9, 11))
    for completion in ((20, 2), (21, 2), (22, 23, 2), (2,))
]
CALLS = st.lists(st.lists(st.sampled_from(PAIRS), max_size=9), max_size=12)


@given(calls=CALLS, memory=st.integers(0, 8))
@settings(deadline=None)
def test_without_a_disk_it_is_a_dict_that_forgets_what_was_asked_for_least_recently(
    calls: list[list[Pair]], memory: int
) -> None:
    scores, model = Scores(), OrderedDict[Pair, None]()
    cache = ReferenceCache(scores, base_digest="base", memory_bytes=rows(memory), disk=None)
    for pairs in calls:
        distinct = list(dict.fromkeys(pairs))
        scores.asked.clear()
        found = cache.log_probabilities(branches_of(pairs))
        assert found.tolist() == [value_of(pair) for pair in pairs]
        assert scores.asked == [pair for pair in distinct if pair not in model]
        for pair in distinct:
            model[pair] = None
            model.move_to_end(pair)
        while len(model) > memory:
            model.popitem(last=False)
        assert len(cache) == len(model)


@given(calls=CALLS, memory=st.integers(0, 8))
@settings(deadline=None)
def test_with_a_disk_nothing_is_computed_twice(calls: list[list[Pair]], memory: int) -> None:
    with TemporaryDirectory() as folder:
        scores, file = Scores(), Path(folder) / "r"
        cache = ReferenceCache(scores, base_digest="base", memory_bytes=rows(memory), disk=file)
        for pairs in calls:
            found = cache.log_probabilities(branches_of(pairs))
            assert found.tolist() == [value_of(pair) for pair in pairs]
            assert len(cache) <= memory
        distinct = list(dict.fromkeys(pair for pairs in calls for pair in pairs))
        assert scores.asked == distinct
        assert file.exists() == (len(distinct) > memory)


@given(
    runs=st.lists(st.tuples(st.sampled_from(["one base", "another"]), CALLS), max_size=5),
    memory=st.integers(0, 8),
)
@settings(deadline=None, max_examples=50)
def test_a_later_run_reads_what_had_left_memory_of_its_own_base_model(
    runs: list[tuple[str, list[list[Pair]]]], memory: int
) -> None:
    with TemporaryDirectory() as folder:
        on_disk: set[tuple[str, Pair]] = set()
        for base, calls in runs:
            scores = Scores(base)
            cache = ReferenceCache(
                scores, base_digest=base, memory_bytes=rows(memory), disk=Path(folder) / "r"
            )
            recent = OrderedDict[Pair, None]()
            for pairs in calls:
                distinct = list(dict.fromkeys(pairs))
                scores.asked.clear()
                found = cache.log_probabilities(branches_of(pairs))
                assert found.tolist() == [value_of(pair, base) for pair in pairs]
                known = {pair for of_base, pair in on_disk if of_base == base} | set(recent)
                assert scores.asked == [pair for pair in distinct if pair not in known]
                for pair in distinct:
                    recent[pair] = None
                    recent.move_to_end(pair)
                    if len(recent) > memory:
                        oldest, _ = recent.popitem(last=False)
                        on_disk.add((base, oldest))


def test_only_missing_completions_are_asked_for_and_each_once() -> None:
    scores = Scores()
    cache = ReferenceCache(scores, base_digest="base", memory_bytes=2**20, disk=None)
    one, two, three = ((5, 9), (20, 2)), ((5, 9), (21, 2)), ((6,), (20, 2))
    cache.log_probabilities(branches_of([one]))
    assert scores.asked == [one]
    cache.log_probabilities(branches_of([two, one, two, three, one, two, three]))
    assert scores.asked == [one, two, three]


def test_nothing_asked_for_is_nothing_scored() -> None:
    scores = Scores()
    cache = ReferenceCache(scores, base_digest="base", memory_bytes=2**20, disk=None)
    for nothing in ([], [(a_group((5, 9), [], []), ())]):
        found = cache.log_probabilities(nothing)
        assert (found.shape, found.dtype) == ((0,), torch.float32)
    assert scores.asked == []


def test_what_was_used_last_stays_in_memory() -> None:
    scores = Scores()
    cache = ReferenceCache(scores, base_digest="base", memory_bytes=rows(2), disk=None)
    first, second, third = PAIRS[:3]
    for pair in (first, second, first, third):
        cache.log_probabilities(branches_of([pair]))
    scores.asked.clear()
    cache.log_probabilities(branches_of([third, first]))
    assert scores.asked == []
    cache.log_probabilities(branches_of([second]))
    assert scores.asked == [second]


def test_every_bit_comes_back_from_memory_and_from_disk(tmp_path: Path) -> None:
    exact = torch.tensor(
        [0.0, -0.0, -1.0, -0.1, 2**-149, -(2**-140), float("-inf"), float("nan"), -3e38, -17.0]
    )
    asked = branches_of([((5, 9), (number, 2)) for number in range(10, 10 + len(exact))])
    for memory in (0, 4, 10):
        cache = ReferenceCache(
            lambda branches: exact,
            base_digest="base",
            memory_bytes=rows(memory),
            disk=tmp_path / str(memory),
        )
        for _ in range(3):
            found = cache.log_probabilities(asked)
            assert torch.equal(found.view(torch.int32), exact.view(torch.int32))


def test_a_run_that_fits_into_memory_leaves_no_file(tmp_path: Path) -> None:
    file, scores = tmp_path / "reference.sqlite", Scores()
    cache = ReferenceCache(scores, base_digest="base", memory_bytes=rows(3), disk=file)
    cache.log_probabilities(branches_of(PAIRS[:3]))
    cache.log_probabilities(branches_of(PAIRS[:3]))
    assert list(tmp_path.iterdir()) == []
    cache.log_probabilities(branches_of(PAIRS[3:4]))
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == [file.name]


def test_a_damaged_file_costs_time_and_no_value(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file, scores = tmp_path / "reference.sqlite", Scores()
    cache = ReferenceCache(scores, base_digest="base", memory_bytes=rows(2), disk=file)
    expected = [value_of(pair) for pair in PAIRS]
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert cache.log_probabilities(branches_of(PAIRS)).tolist() == expected
            file.write_bytes(b"torn" * 2000)
    assert len(caplog.messages) == 1
    # The last two pairs of a call are in memory at the next.
    assert scores.asked == [*PAIRS, *PAIRS[:-2], *PAIRS[:-2]]


def test_a_failing_score_leaves_what_was_known() -> None:
    scores = Scores()

    def fails(branches: Sequence[Branch]) -> torch.Tensor:
        if PAIRS[2] in pairs_of(branches):
            raise RuntimeError("out of memory")
        return scores(branches)

    cache = ReferenceCache(fails, base_digest="base", memory_bytes=rows(2), disk=None)
    cache.log_probabilities(branches_of(PAIRS[:2]))
    with pytest.raises(RuntimeError, match="out of memory"):
        cache.log_probabilities(branches_of(PAIRS[:3]))
    assert cache.log_probabilities(branches_of(PAIRS[:2])).tolist() == [
        value_of(pair) for pair in PAIRS[:2]
    ]
    assert scores.asked == PAIRS[:2]


@pytest.mark.parametrize("wrong", [torch.zeros(2), torch.zeros(3, 1), torch.zeros(())])
def test_refuses_a_score_of_another_shape(wrong: torch.Tensor) -> None:
    cache = ReferenceCache(lambda _: wrong, base_digest="base", memory_bytes=2**20, disk=None)
    with pytest.raises(ValueError, match="one value for each of 3 completions, got the shape"):
        cache.log_probabilities(branches_of(PAIRS[:3]))


def test_refuses_negative_memory() -> None:
    with pytest.raises(ValueError, match="memory_bytes must be at least 0, got -1"):
        ReferenceCache(Scores(), base_digest="base", memory_bytes=-1, disk=None)


def calls_of_a_run() -> list[list[Pair]]:
    """Many calls, each with pairs that were asked for before and some that were not."""
    return [
        [((5, 9), (number, 2)) for number in (*range(start, start + 40), *range(0, start, 9))]
        for start in range(0, 1200, 20)
    ]


@pytest.mark.parametrize("calls_before", [1, 7, 30])
def test_after_a_kill_all_answers_are_right(tmp_path: Path, calls_before: int) -> None:
    file = tmp_path / "reference.sqlite"

    def make(score: Callable[[Sequence[Branch]], torch.Tensor]) -> ReferenceCache:
        return ReferenceCache(score, base_digest="base", memory_bytes=rows(50), disk=file)

    fork = multiprocessing.get_context("fork")
    reader, writer = fork.Pipe(duplex=False)

    def run() -> None:
        cache = make(Scores())
        for number, pairs in enumerate(calls_of_a_run()):
            cache.log_probabilities(branches_of(pairs))
            writer.send(number)
        signal.pause()

    process = fork.Process(target=run)
    process.start()
    # The child has its own end; with this one closed, its death would end the wait below.
    writer.close()
    while reader.recv() < calls_before - 1:
        pass
    # SIGKILL, while the next calls are on their way.
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL

    scores = Scores()
    cache = make(scores)
    for pairs in calls_of_a_run():
        found = cache.log_probabilities(branches_of(pairs))
        assert found.tolist() == [value_of(pair) for pair in pairs]
    finished = dict.fromkeys(pair for pairs in calls_of_a_run()[:calls_before] for pair in pairs)
    # Of what the killed process had asked for, no more was lost than its memory held.
    assert len(finished.keys() & set(scores.asked)) <= 50
    assert len(scores.asked) == len(set(scores.asked))
