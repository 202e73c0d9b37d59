import errno
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors import SafetensorError

from pkgllm.errors import RunError
from pkgllm.files import (
    hidden_sibling,
    make_folder,
    remove_unfinished,
    restore_folders,
    write_atomically,
    write_folder_atomically,
)

SMALL_FILES_ONLY = """\
import resource
from pathlib import Path
from safetensors.numpy import save_file
import numpy
from pkgllm.errors import RunError
from pkgllm.files import write_atomically, write_folder_atomically
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    {statement}
except RunError as error:
    print(error)
"""
TOO_LARGE = "File too large; raise the limit on the size of a file (ulimit -f)"


def _with_small_files_only(statement: str, folder: Path) -> str:
    """Run a statement where no file may grow beyond 1000 bytes, and return what it said."""
    finished = subprocess.run(
        [sys.executable, "-c", SMALL_FILES_ONLY.format(statement=statement)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        check=True,
    )
    return finished.stdout.strip()


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_text_and_bytes_are_written_as_they_are(tmp_path: Path) -> None:
    write_atomically(tmp_path / "a", "é\r\n")
    assert (tmp_path / "a").read_bytes() == b"\xc3\xa9\r\n"
    write_atomically(tmp_path / "a", b"\xff")
    assert (tmp_path / "a").read_bytes() == b"\xff"
    assert _names(tmp_path) == ["a"]


def test_new_files_and_folders_are_private_and_an_old_file_keeps_its_mode(tmp_path: Path) -> None:
    def mode(name: str) -> int:
        return stat.S_IMODE((tmp_path / name).stat().st_mode)

    write_atomically(tmp_path / "a", "")
    make_folder(tmp_path / "b")
    write_folder_atomically(tmp_path / "c", lambda folder: (folder / "d").touch())
    assert [mode(name) for name in "abc"] == [0o600, 0o700, 0o700]
    (tmp_path / "a").chmod(0o640)
    write_atomically(tmp_path / "a", "new")
    assert mode("a") == 0o640


def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("old")
    said = _with_small_files_only("write_atomically(Path('a'), 'x' * 5000)", tmp_path)
    assert said == f"cannot write a: {TOO_LARGE}"
    assert (tmp_path / "a").read_text() == "old"
    assert _names(tmp_path) == ["a"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs the device that is always full")
def test_a_place_without_space_says_so(tmp_path: Path) -> None:
    def fill(folder: Path) -> None:
        (folder / "a").symlink_to("/dev/full")
        (folder / "a").write_text("x")

    with pytest.raises(RunError) as caught:
        write_folder_atomically(tmp_path / "adapter", fill)
    assert str(caught.value) == (
        f"cannot write {tmp_path}/adapter: No space left on device; free some space there"
    )
    assert _names(tmp_path) == []


def test_a_path_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    with pytest.raises(RunError) as caught:
        write_atomically(tmp_path / "a" / "b", "x")
    assert str(caught.value) == (
        f"cannot write {tmp_path}/a/b: Not a directory; a file is where a folder is needed; "
        "choose another place"
    )


def test_a_missing_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"No such file or directory; make its folder first"):
        write_atomically(tmp_path / "a" / "b", "x")


def test_a_folder_in_the_files_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(RunError, match="Is a directory"):
        write_atomically(tmp_path / "a", "x")
    assert _names(tmp_path) == ["a"]


def test_a_folder_is_replaced_as_a_whole(tmp_path: Path) -> None:
    target = tmp_path / "adapter"

    def first(folder: Path) -> None:
        (folder / "old").write_text("1")

    def second(folder: Path) -> None:
        assert (target / "old").read_text() == "1"
        (folder / "sub").mkdir()
        (folder / "sub" / "new").write_text("2")

    write_folder_atomically(target, first)
    write_folder_atomically(target, second)
    assert _names(tmp_path) == ["adapter"]
    assert _names(target) == ["sub"]
    assert (target / "sub" / "new").read_text() == "2"


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device; free some"),
        (SafetensorError("I/O error: File too large (os error 27)"), TOO_LARGE.split(";")[0]),
        (SafetensorError("odd"), "odd; choose another place"),
    ],
)
def test_a_folder_that_cannot_be_filled_leaves_the_old_one(
    tmp_path: Path, error: Exception, message: str
) -> None:
    target = tmp_path / "adapter"
    write_folder_atomically(target, lambda folder: (folder / "old").touch())

    def fail(folder: Path) -> None:
        (folder / "new").touch()
        raise error

    with pytest.raises(RunError) as caught:
        write_folder_atomically(target, fail)
    assert str(caught.value).startswith(f"cannot write {target}: {message}")
    assert _names(tmp_path) == ["adapter"]
    assert _names(target) == ["old"]


def test_tensors_that_do_not_fit_on_the_disk_give_one_sentence(tmp_path: Path) -> None:
    said = _with_small_files_only(
        "write_folder_atomically(Path('adapter'), "
        "lambda f: save_file({'a': numpy.zeros(10000)}, f / 'adapter_model.safetensors'))",
        tmp_path,
    )
    assert said == f"cannot write adapter: {TOO_LARGE}"
    assert _names(tmp_path) == []


def test_a_mistake_in_the_filling_stays_visible_and_leaves_nothing(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        raise KeyError(folder.name)

    with pytest.raises(KeyError):
        write_folder_atomically(tmp_path / "adapter", fail)
    assert _names(tmp_path) == []


def test_a_process_that_dies_between_the_two_renames_loses_nothing(tmp_path: Path) -> None:
    target = tmp_path / "adapter"
    write_folder_atomically(target, lambda folder: (folder / "old").touch())
    # The second rename is the one that puts the new folder in its place.
    dying = f"""\
import os
from pathlib import Path
from pkgllm.files import make_folder, write_folder_atomically
rename = Path.rename
def rename_once_then_die(self, target):
    if Path(target).name == "adapter":
        os._exit(9)
    return rename(self, target)
Path.rename = rename_once_then_die
write_folder_atomically(Path({str(target)!r}), lambda folder: (folder / "new").touch())
"""
    died = subprocess.run(
        [sys.executable, "-c", dying],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        check=False,
    )
    assert died.returncode == 9
    assert not target.exists()
    restore_folders(tmp_path)
    assert _names(target) == ["old"]


def test_what_a_dead_process_had_begun_is_removed_and_nothing_else(tmp_path: Path) -> None:
    kept = [tmp_path / "a.tmp", tmp_path / ".hidden", tmp_path / "deep" / "data"]
    for path in kept:
        path.parent.mkdir(exist_ok=True)
        path.write_text("mine")
    hidden_sibling(tmp_path / "results.json").write_text("half")
    folder = hidden_sibling(tmp_path / "deep" / "adapter")
    folder.mkdir()
    (folder / "part").write_text("half")
    remove_unfinished(tmp_path)
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == sorted(kept)
