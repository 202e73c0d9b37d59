import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pkgllm.errors import RunError
from pkgllm.runs import folder as runs
from pkgllm.runs.folder import RunFolder, provenance


def test_a_run_folder_is_made_with_those_above_it(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "a" / "b")
    assert folder.path.is_dir()
    assert RunFolder.create(tmp_path / "a" / "b") == folder


def test_a_folder_that_holds_files_is_refused_and_kept(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(RunError) as caught:
        RunFolder.create(tmp_path)
    assert str(caught.value) == (
        f"run folder {tmp_path}: must be new or empty, holds files; use another --output"
    )
    assert (tmp_path / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("below", ["file", "file/run", "file/a/run"])
def test_a_run_folder_below_a_file_is_refused(tmp_path: Path, below: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RunError) as caught:
        RunFolder.create(tmp_path / below)
    assert str(caught.value).startswith(f"cannot make the run folder {tmp_path / below}: ")
    assert "a file is where a folder is needed" in str(caught.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_run_folder_without_permission_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(RunError, match=r"Permission denied; choose a place that you may write to"):
        RunFolder.create(tmp_path / "run")


def test_open_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"run folder .*/no: no such folder"):
        RunFolder.open(tmp_path / "no")
    with pytest.raises(RunError, match=r"not a finished run, because config\.yaml is missing"):
        RunFolder.open(tmp_path)
    folder = RunFolder(tmp_path)
    folder.write_text("config.yaml", "seed: 1\n")
    assert RunFolder.open(tmp_path) == folder
    with pytest.raises(RunError, match=r"because adapter, split\.json are missing"):
        RunFolder.open(tmp_path, ("config.yaml", "adapter", "split.json"))


def test_open_restores_an_adapter_that_had_stepped_aside(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").touch()
    (tmp_path / ".adapter.replaced").mkdir()
    assert RunFolder.open(tmp_path, ("adapter",)).adapter.is_dir()


def test_files_lie_where_their_names_say(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "run")
    assert folder.write_text("results.md", "| a |\n") == folder.path / "results.md"
    assert folder.write_json("results.json", {"queries": 3}) == folder.results
    assert folder.write_folder("adapter", lambda f: (f / "x").touch()) == folder.adapter
    assert [path.name for path in (folder.config, folder.provenance, folder.split)] == [
        "config.yaml",
        "provenance.json",
        "split.json",
    ]
    assert json.loads(folder.results.read_text()) == {"queries": 3}


def test_numbers_that_are_not_finite_become_null(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    path = folder.write_json("x.json", {"a": [float("nan"), (float("inf"), 1.5)], "b": True})
    assert json.loads(path.read_text()) == {"a": [None, [None, 1.5]], "b": True}
    folder.append_metrics({"loss": float("nan")})
    assert folder.read_metrics() == [{"loss": None}]


def test_half_a_surrogate_pair_is_written_as_json(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    path = folder.write_json("x.json", ["\ud83d", "é"])
    assert json.loads(path.read_text(encoding="utf-8")) == ["\ud83d", "é"]


def test_a_run_without_metrics_has_none(tmp_path: Path) -> None:
    assert RunFolder(tmp_path).read_metrics() == []


records = st.lists(
    st.dictionaries(
        st.text(),
        st.none()
        | st.booleans()
        | st.integers()
        | st.text()
        | st.floats(allow_nan=False, allow_infinity=False),
        max_size=3,
    ),
    max_size=4,
)


# The metrics of the example before are removed first.
@pytest.mark.slow
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(records, records, st.data())
def test_a_torn_last_line_costs_that_line_only(
    tmp_path: Path,
    before: list[dict[str, object]],
    after: list[dict[str, object]],
    data: st.DataObject,
) -> None:
    folder = RunFolder(tmp_path)
    folder.metrics.unlink(missing_ok=True)
    for record in before:
        folder.append_metrics(record)
    line = json.dumps({"round_num": 7, "loss": 0.25}).encode()
    torn = line[: data.draw(st.integers(0, len(line)))]
    with folder.metrics.open("ab") as file:
        file.write(torn)
    assert folder.read_metrics() == before
    for record in after:
        folder.append_metrics(record)
    assert folder.read_metrics() == before + after


def test_a_broken_line_in_the_middle_is_told_with_its_number(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.metrics.write_text('{"a": 1}\n{"a":\n{"a": 3}\n')
    with pytest.raises(RunError, match=r"metrics\.jsonl: line 2: must be JSON"):
        folder.read_metrics()


def test_metrics_survive_a_disk_that_fills_up(tmp_path: Path) -> None:
    script = """\
import resource
from pathlib import Path
from pkgllm.errors import RunError
from pkgllm.runs.folder import RunFolder
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
folder = RunFolder(Path("."))
for round_num in range(100):
    try:
        folder.append_metrics({"round_num": round_num, "note": "x" * 100})
    except RunError as error:
        print(round_num, error)
        break
"""
    finished = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        check=True,
    )
    # A line is {"round_num": 0, "note": "..."}: 14 + 1 + 11 + 100 + 2 bytes and its end, 129; so
    # seven lines (903) fit into 1000 bytes and the eighth (1032) is torn.
    assert finished.stdout == (
        "7 cannot write metrics.jsonl: File too large; raise the limit on the size of a file "
        "(ulimit -f)\n"
    )
    assert [record["round_num"] for record in RunFolder(tmp_path).read_metrics()] == list(range(7))


def test_metrics_below_a_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / "run").touch()
    with pytest.raises(RunError, match=r"^cannot write .*/run/metrics\.jsonl: Not a directory"):
        RunFolder(tmp_path / "run").append_metrics({})


def test_provenance_tells_versions_seed_and_digests(tmp_path: Path) -> None:
    found = provenance(seed=3, digests={"split": "ab"})
    assert found["seed"] == 3
    assert found["digests"] == {"split": "ab"}
    packages = found["packages"]
    assert isinstance(packages, dict)
    assert packages["torch"].startswith("2.")
    assert found["date"].endswith("+00:00")  # type: ignore[attr-defined]  # a str in an object
    path = RunFolder(tmp_path).write_json("provenance.json", found)
    assert json.loads(path.read_text()) == found


def _git(folder: Path, *arguments: str) -> str:
    finished = subprocess.run(
        ["git", "-c", "user.name=t", "-c", "user.email=t@t", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    return finished.stdout.strip()


def test_the_source_is_the_commit_of_the_checkout_that_tracks_it(tmp_path: Path) -> None:
    file = tmp_path / "runs.py"
    file.write_text("1")
    assert runs._source(file) is None
    _git(tmp_path, "init", "-q")
    assert runs._source(file) is None, "an installed copy inside somebody's checkout"
    _git(tmp_path, "add", "runs.py")
    _git(tmp_path, "commit", "-qm", "first")
    commit = _git(tmp_path, "rev-parse", "HEAD")
    assert runs._source(file) == {"commit": commit, "modified": False}
    file.write_text("2")
    assert runs._source(file) == {"commit": commit, "modified": True}


def test_provenance_needs_no_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert provenance(seed=0, digests={})["source"] is None
