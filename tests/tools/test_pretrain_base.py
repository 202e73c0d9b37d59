import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pkgllm.errors import DataError
from tools import pretrain_base
from tools.small_world_text import public_documents

ROOT = Path(__file__).parents[2]
SMALL = ["--vocab-size", "300", "--hidden-size", "16", "--intermediate-size", "32"]
SMALL += ["--layers", "1", "--heads", "2", "--head-size", "8", "--context", "64"]


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("text")
    documents = list(public_documents(0, num_films=20, num_documents=60, personal_share=0.2))
    lines = [json.dumps({"text": document}) + "\n" for document in documents[:50]]
    (folder / "some.jsonl").write_text("".join(lines))
    (folder / "deeper").mkdir()
    for index, document in enumerate(documents[50:]):
        (folder / "deeper" / f"{index:02d}.txt").write_text(document)
    return folder


def test_documents_come_from_lines_and_whole_files(text: Path) -> None:
    documents = list(public_documents(0, num_films=20, num_documents=60, personal_share=0.2))
    # "deeper" sorts before "some.jsonl".
    assert pretrain_base.read_documents(text) == [*documents[50:], *documents[:50]]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b'{"text": "x"}\n{"text": 5}\n', r"a\.jsonl, line 2: every line must be"),
        ("a.jsonl", b'{"text": "x"}\n{"te', r"a\.jsonl, line 2: .* got '\{\"te'"),
        ("a.jsonl", b"[1]\n", r"a\.jsonl, line 1: "),
        ("a.txt", b"only one", r"at least two documents in .txt or .jsonl files, got 1"),
        ("a.txt", b"\xff", r"a\.txt must be UTF-8 text"),
    ],
)
def test_bad_text_is_named(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        pretrain_base.read_documents(tmp_path)


def test_the_command_trains_and_says_so(
    text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "model"
    command = ["--text", str(text), "--output", str(output), *SMALL]
    assert pretrain_base.main([*command, "--steps", "4", "--checkpoint-every", "2"]) == 0
    printed = capsys.readouterr().out
    assert "step 2: held-out loss" in printed
    assert "step 4: held-out loss" in printed
    assert "step 4/4" in printed
    assert (output / "config.json").is_file()
    assert pretrain_base.main(command) == 1
    assert "pretrain_base: the output must not exist yet" in capsys.readouterr().err


def test_the_command_says_what_is_wrong(
    text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "model"
    assert pretrain_base.main(["--text", str(tmp_path / "no"), "--output", str(output)]) == 1
    assert "--text must be a folder of documents" in capsys.readouterr().err
    with pytest.raises(SystemExit) as exit_:
        pretrain_base.main(["--text", str(text), "--output", str(output), "--steps", "0"])
    assert exit_.value.code == 2
    assert "steps must be at least 1, got 0" in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    output = tmp_path / "file" / "model"
    assert pretrain_base.main(["--text", str(text), "--output", str(output), *SMALL]) == 1
    assert "pretrain_base: cannot make" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.slow
def test_a_killed_process_goes_on_to_the_same_model(text: Path, tmp_path: Path) -> None:
    def arguments(name: str) -> list[str]:
        run = ["--steps", "60", "--checkpoint-every", "5"]
        return ["--text", str(text), "--output", str(tmp_path / name), *SMALL, *run]

    assert pretrain_base.main(arguments("whole")) == 0
    command = [sys.executable, "-m", "tools.pretrain_base", *arguments("killed")]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    checkpoint = tmp_path / "killed.partial" / "checkpoint.pt"
    while not checkpoint.exists() and process.poll() is None:
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (tmp_path / "killed").exists()
    assert pretrain_base.main(arguments("killed")) == 0
    first, second = (tmp_path / name / "model.safetensors" for name in ("whole", "killed"))
    assert first.read_bytes() == second.read_bytes()
