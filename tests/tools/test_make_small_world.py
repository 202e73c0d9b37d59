import subprocess
import sys
from pathlib import Path

import pytest

from tools.small_world import generate_small_world
from tools.small_world_text import write_public_text

ROOT = Path(__file__).parents[2]


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tools.make_small_world", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_the_command_writes_what_the_functions_write(tmp_path: Path) -> None:
    done = _run(
        *f"--output {tmp_path}/a --public-text {tmp_path}/a --seed 3 --num-films 40".split(),
        *["--num-people", "6", "--num-documents", "30", "--personal-share", "0.5"],
    )
    assert (done.returncode, done.stderr) == (0, "")
    generate_small_world(tmp_path / "b", seed=3, num_films=40, num_people=6)
    write_public_text(tmp_path / "b", seed=3, num_films=40, num_documents=30, personal_share=0.5)
    contents = [
        {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
        for folder in (tmp_path / "a", tmp_path / "b")
    ]
    assert len(contents[0]) == 4
    assert contents[0] == contents[1]


@pytest.mark.slow
def test_bad_numbers_are_one_sentence(tmp_path: Path) -> None:
    done = _run("--output", str(tmp_path / "a"), "--num-people", "1")
    assert done.returncode == 1
    assert done.stderr == "make_small_world: num_people must be at least 2, got 1\n"
    assert _run().returncode == 2
