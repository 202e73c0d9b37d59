import dataclasses
import os
import resource
import stat
import sys
import tracemalloc
import typing
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pkgllm.errors import DataError, RunError
from pkgllm.prompts.group_store import GroupStore, GroupWriter
from pkgllm.prompts.groups import Completion, CompletionSource, Group
from pkgllm.prompts.prompts import Prompt

Groups = Mapping[str, tuple[Group, ...]]


def a_completion(number: int, **changes: typing.Any) -> Completion:
    plain = Completion(f"{number}", (100 + number, 7, 1), number % 2 == 0, "liked")
    return dataclasses.replace(plain, **changes)


def a_prompt(client: str, text: str = "Recommend movies to me.") -> Prompt:
    return Prompt(client, "liked: Film 3", text, (5, 6, 7), frozenset({"3"}), 2)


def some_groups(client: str, count: int, text: str = "Recommend movies to me.") -> Iterator[Group]:
    for number in range(count):
        completions = tuple(a_completion(number + step) for step in range(3))
        yield Group(a_prompt(client, f"{text} {number}"), completions, completions[1:])


def three_clients() -> Groups:
    return {f"p{count}": tuple(some_groups(f"p{count}", count)) for count in (2, 0, 1)}


def write(path: Path, groups: Groups) -> GroupStore:
    with GroupWriter.create(path) as writer:
        for client, own in groups.items():
            writer.add(client, own)
    return GroupStore.open(path)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "groups.arrow"


# Any text that Python has, halves of surrogate pairs among it.
texts = st.text(st.characters(exclude_categories=()), max_size=6)
token_ids = st.lists(st.integers(-(2**31), 2**31 - 1), max_size=4).map(tuple)
BY_TYPE = {
    str: texts,
    int: st.integers(-(2**63), 2**63 - 1),
    bool: st.booleans(),
    tuple[int, ...]: token_ids,
    frozenset[str]: st.frozensets(texts, max_size=4),
    CompletionSource: st.sampled_from(typing.get_args(CompletionSource)),
}


def every_field(
    made: type, **known: st.SearchStrategy[typing.Any]
) -> st.SearchStrategy[typing.Any]:
    """Vary all fields, also those that have a default or are added some day."""
    hints = typing.get_type_hints(made)
    # What is not compared is not stored either: where the group lies in its store.
    others = {field.name for field in dataclasses.fields(made) if field.compare} - set(known)
    return st.builds(made, **known, **{name: BY_TYPE[hints[name]] for name in others})


# Few completions, so that groups share some, beside any.
completions = st.lists(
    st.one_of(st.integers(0, 3).map(a_completion), every_field(Completion)), max_size=4
).map(tuple)
groups = every_field(
    Group, prompt=every_field(Prompt), completions=completions, mismatched=completions
)
populations = st.dictionaries(texts, st.lists(groups, max_size=3).map(tuple), max_size=4)


@pytest.mark.slow
@settings(deadline=None)
@given(population=populations)
def test_what_is_read_is_what_was_written(
    tmp_path_factory: pytest.TempPathFactory, population: Groups
) -> None:
    store = write(tmp_path_factory.mktemp("store") / "groups.arrow", population)
    assert list(store) == list(population)
    assert len(store) == len(population)
    assert list(store.items()) == list(population.items())
    for client, own in population.items():
        assert client in store
        assert store.num_groups(client) == len(own)


@pytest.mark.parametrize(
    "other",
    [
        {"item": "8"},
        {"token_ids": (1,)},
        {"desirable": True},
        {"source": "uniform"},
    ],
)
def test_completions_that_differ_in_one_field_stay_apart(
    path: Path, other: dict[str, typing.Any]
) -> None:
    pair = (a_completion(7), a_completion(7, **other))
    group = Group(a_prompt("p1"), pair, pair[::-1])
    assert write(path, {"p1": (group,)})["p1"] == (group,)


def test_fields_have_the_types_that_they_had(path: Path) -> None:
    ((first, *_), *_) = write(path, three_clients()).values()
    assert type(first.completions) is type(first.mismatched) is tuple
    assert type(first.completions[0].token_ids) is type(first.prompt.token_ids) is tuple
    assert type(first.completions[0].desirable) is bool
    assert type(first.prompt.tails) is frozenset


def test_a_client_who_is_not_there(path: Path) -> None:
    store = write(path, three_clients())
    assert "p7" not in store
    assert store.get("p7") is None
    for ask in (store.__getitem__, store.num_groups):
        with pytest.raises(KeyError):
            ask("p7")


def test_equal_groups_make_equal_files(tmp_path: Path) -> None:
    names = [f"item {number}" for number in range(300)]
    files = []
    for order in (names, names[::-1]):
        prompt = dataclasses.replace(a_prompt("p1"), tails=frozenset(order))
        write(tmp_path / order[0], {"p1": (Group(prompt, (a_completion(1),)),)})
        files.append((tmp_path / order[0]).read_bytes())
    assert files[0] == files[1]


def test_a_completion_is_stored_once_for_each_client(tmp_path: Path) -> None:
    title = a_completion(1, token_ids=tuple(range(10_000)))
    once, often = (
        write(tmp_path / str(count), {"p1": (Group(a_prompt("p1"), (title,) * count, (title,)),)})
        for count in (1, 50)
    )
    assert often.path.stat().st_size < once.path.stat().st_size + 1000


# The memory of a round

NUM_CLIENTS, TEXT_BYTES = 2000, 20_000


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> GroupStore:
    """Two thousand clients of one group each, 40 MB in all."""
    text = "x" * TEXT_BYTES
    return write(
        tmp_path_factory.mktemp("large") / "groups.arrow",
        {f"p{n}": tuple(some_groups(f"p{n}", 1, f"text of p{n}; {text}")) for n in range(2000)},
    )


def traced(action: Callable[[], object]) -> tuple[int, int]:
    """Return how many bytes of Python objects an action leaves, and had at its peak."""
    tracemalloc.start()
    try:
        kept = action()
        left, peak = tracemalloc.get_traced_memory()
        assert kept is not None
        return left, peak
    finally:
        tracemalloc.stop()


@pytest.mark.slow
def test_only_ids_and_numbers_of_groups_stay_in_memory(large: GroupStore) -> None:
    assert large.path.stat().st_size > NUM_CLIENTS * TEXT_BYTES
    left, peak = traced(lambda: GroupStore.open(large.path))
    # Ten thousand clients would take less than 5 MB.
    assert left < peak < NUM_CLIENTS * 500


def test_reading_a_client_costs_what_the_client_has(large: GroupStore) -> None:
    pool = pa.proxy_memory_pool(pa.default_memory_pool())
    usual = pa.default_memory_pool()
    pa.set_memory_pool(pool)
    try:
        _, peak = traced(lambda: large["p1234"])
    finally:
        pa.set_memory_pool(usual)
    # The file's pages, Arrow's values and the text at once, and not a second client's.
    assert peak < 10 * TEXT_BYTES
    assert pool.max_memory() < TEXT_BYTES


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="asks Linux for the peak")
def test_pages_of_the_file_do_not_add_up(large: GroupStore) -> None:
    def kilobytes(name: str) -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(name))

    # Sets the peak back to what is resident now.
    Path("/proc/self/clear_refs").write_text("5")
    before = kilobytes("VmRSS")
    store = GroupStore.open(large.path)
    for client in store:
        assert len(store[client]) == 1
    assert kilobytes("VmHWM") - before < 10_000
    assert large.path.stat().st_size > 40e6


@pytest.mark.slow
def test_writing_holds_one_client_at_a_time(path: Path) -> None:
    def write_all() -> bool:
        with GroupWriter.create(path) as writer:
            for number in range(200):
                client = f"p{number}"
                writer.add(client, list(some_groups(client, 1, client * TEXT_BYTES)))
        return True

    before = pa.total_allocated_bytes()
    _, peak = traced(write_all)
    assert path.stat().st_size > 200 * 2 * TEXT_BYTES
    assert peak < 40 * TEXT_BYTES
    assert pa.total_allocated_bytes() - before < TEXT_BYTES


def test_damage_to_one_client_is_told_when_that_client_is_read(
    large: GroupStore, path: Path
) -> None:
    content = large.path.read_bytes()
    for client in ("p3", "p1999"):
        assert content.count(f"text of {client};".encode()) == 1
        content = content.replace(f"text of {client};".encode(), f"TEXT of {client};".encode())
    path.write_bytes(content)
    damaged = GroupStore.open(path)
    for client in ("p3", "p1999"):
        with pytest.raises(DataError) as caught:
            damaged[client]
        assert str(caught.value) == (
            f"{path}: must be a whole store of groups as training writes it: what it holds of "
            f"client {client!r} was changed; train the run again"
        )
    assert all(damaged[client] == large[client] for client in ("p2", "p4", "p1998"))


# Writing that fails


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, FileNotFoundError])
@pytest.mark.parametrize("earlier", [None, b"an earlier file"])
def test_an_interruption_leaves_nothing(
    path: Path, error: type[BaseException], earlier: bytes | None
) -> None:
    if earlier is not None:
        path.write_bytes(earlier)

    def interrupted() -> None:
        with GroupWriter.create(path) as writer:
            writer.add("p1", tuple(some_groups("p1", 3)))
            assert len(list(path.parent.iterdir())) == 1 + (earlier is not None)
            raise error("by somebody else")

    # What was raised in the block arrives as it was, also an error of the operating system.
    with pytest.raises(error, match="by somebody else"):
        interrupted()
    assert [entry.read_bytes() for entry in path.parent.iterdir()] == [earlier] * bool(earlier)


def test_the_file_appears_whole_and_replaces_an_earlier_one(path: Path) -> None:
    before = write(path, {"p9": ()})
    with GroupWriter.create(path) as writer:
        for client, own in three_clients().items():
            writer.add(client, own)
            assert list(GroupStore.open(path)) == ["p9"]
        assert writer.num_clients == 3
    assert GroupStore.open(path) == three_clients()
    assert list(path.parent.iterdir()) == [path]
    with pytest.raises(DataError, match="what it holds of client 'p9' was changed"):
        before["p9"]


def test_only_the_owner_may_read_the_file(path: Path) -> None:
    path.touch(mode=0o666)
    earlier = os.umask(0)
    try:
        with GroupWriter.create(path) as writer:
            (temporary,) = (entry for entry in path.parent.iterdir() if entry != path)
            assert stat.S_IMODE(temporary.stat().st_mode) == 0o600
            writer.add("p1", ())
    finally:
        os.umask(earlier)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_client_is_added_once(path: Path) -> None:
    with GroupWriter.create(path) as writer:
        writer.add("p1", tuple(some_groups("p1", 1)))
        with pytest.raises(ValueError, match="client 'p1' must be added once"):
            writer.add("p1", ())
        writer.add("p2", ())
    assert GroupStore.open(path) == {"p1": tuple(some_groups("p1", 1)), "p2": ()}


@pytest.mark.parametrize("token_id", [2**31, -(2**31) - 1, 2**70])
def test_a_token_id_that_does_not_fit_is_refused_and_the_others_are_kept(
    path: Path, token_id: int
) -> None:
    wrong = Group(a_prompt("p1"), (a_completion(1, token_ids=(token_id,)),))
    with GroupWriter.create(path) as writer:
        with pytest.raises(ValueError, match="groups of client 'p1': token ids must be whole"):
            writer.add("p1", (wrong,))
        writer.add("p2", ())
    assert GroupStore.open(path) == {"p2": ()}


@pytest.mark.parametrize("size", [100, 30_000])
def test_a_full_disk_says_so_and_leaves_nothing(path: Path, size: int) -> None:
    many = {f"p{number}": tuple(some_groups(f"p{number}", 3)) for number in range(50)}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        with pytest.raises(RunError) as caught:
            write(path, many)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert str(caught.value) == (
        f"cannot write {path}: File too large; raise the limit on the size of a file (ulimit -f)"
    )
    assert list(path.parent.iterdir()) == []


def test_a_missing_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"No such file or directory; make its folder first"):
        write(tmp_path / "no" / "groups.arrow", {})


# Files that are no store


def refusal(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        GroupStore.open(path)
    said = str(caught.value)
    assert said.startswith(f"{path}: must be a whole store of groups as training writes it: ")
    assert said.endswith("; train the run again")
    assert "\n" not in said
    return said


def test_every_beginning_of_a_file_is_refused(path: Path) -> None:
    write(path, three_clients())
    content = path.read_bytes()
    for length in range(0, len(content), 61):
        path.write_bytes(content[:length])
        refusal(path)


@pytest.mark.slow
def test_a_changed_byte_is_told_or_changes_nothing(path: Path) -> None:
    expected = three_clients()
    write(path, expected)
    content = path.read_bytes()
    positions, told = range(0, len(content), 13), 0
    for position in positions:
        changed = bytearray(content)
        changed[position] ^= 0xFF
        path.write_bytes(changed)
        try:
            assert list(GroupStore.open(path).items()) == list(expected.items())
        except DataError:
            told += 1
    # The other bytes mean nothing: padding, and a second description of the columns.
    assert told > len(positions) / 3


@pytest.mark.parametrize("kept", [slice(0, 3), slice(1, 4), slice(0, 0), slice(2, None, -1)])
def test_a_file_that_lacks_clients_or_its_end_is_refused(path: Path, kept: slice) -> None:
    write(path, three_clients())
    with pa.OSFile(str(path)) as file:
        reader = pa.ipc.open_file(file)
        found = [reader.get_batch_with_custom_metadata(n) for n in range(reader.num_record_batches)]
    assert len(found) == 4
    with pa.ipc.new_file(str(path), reader.schema) as batches:
        for batch, metadata in found[kept]:
            batches.write_batch(batch, custom_metadata=metadata)
    refusal(path)


def test_an_arrow_file_of_something_else_is_refused(path: Path) -> None:
    table = pa.table({"client": ["p1"], "num_groups": [1]})
    with pa.ipc.new_file(str(path), table.schema) as batches:
        batches.write_table(table)
    assert "its columns are others" in refusal(path)
    with pa.ipc.new_stream(str(path), table.schema) as stream:
        stream.write_table(table)
    assert "Not an Arrow file" in refusal(path)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    assert ": No such file or directory; " in refusal(tmp_path / "missing")
    assert "is a directory" in refusal(tmp_path)
    (tmp_path / "text").write_text("clients: 3\n" * 100)
    assert "Not an Arrow file" in refusal(tmp_path / "text")


def test_a_file_that_is_gone_is_told(path: Path) -> None:
    store = write(path, three_clients())
    path.unlink()
    with pytest.raises(DataError, match="train the run again"):
        store["p1"]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux takes any bytes for a name")
def test_a_name_that_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"gr\xfcppen.arrow")
    assert write(path, three_clients()) == three_clients()
