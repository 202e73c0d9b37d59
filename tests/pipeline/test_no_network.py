import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from helpers.tiny_corpus import tiny_experiment, write_corpus
from pkgllm.pipeline.train import train
from pkgllm.progress import Silent


@pytest.mark.slow
def test_training_and_ranking_on_this_machine_reach_for_no_other(
    tmp_path: Path,
    tiny_base_folder: Path,
    make_dialogue: Callable[..., dict[str, Any]],
    write_redial: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tried: list[str] = []

    def refuse(*arguments: Any, **named: Any) -> None:
        tried.append(f"{arguments} {named}")
        raise OSError("the network is out of bounds")

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    with pytest.raises(OSError, match="out of bounds"):
        socket.create_connection(("example.org", 80))
    assert len(tried) == 1
    data = write_corpus(tmp_path / "data", make_dialogue, write_redial)
    train(tiny_experiment(data, tiny_base_folder), tmp_path / "run", Silent())
    assert (tmp_path / "run" / "results.json").exists()
    assert len(tried) == 1, tried[1:]
