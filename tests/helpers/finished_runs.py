"""One finished run in each mode, trained once for all tests; nobody changes their files."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from helpers.run_files import MODES, Finished
from helpers.tiny_corpus import tiny_experiment, write_corpus
from pkgllm.pipeline.train import train
from pkgllm.progress import Silent


@pytest.fixture(scope="session")
def data(
    tmp_path_factory: pytest.TempPathFactory,
    make_dialogue: Callable[..., dict[str, Any]],
    write_redial: Callable[..., Path],
) -> Path:
    return write_corpus(tmp_path_factory.mktemp("data"), make_dialogue, write_redial)


@pytest.fixture(scope="session")
def other_data(
    tmp_path_factory: pytest.TempPathFactory,
    make_dialogue: Callable[..., dict[str, Any]],
    write_redial: Callable[..., Path],
) -> Path:
    """Other people with the same ids."""
    return write_corpus(tmp_path_factory.mktemp("other"), make_dialogue, write_redial, seed=5)


@pytest.fixture(scope="session")
def run_in(
    tmp_path_factory: pytest.TempPathFactory, data: Path, tiny_base_folder: Path
) -> Callable[[str], Finished]:
    """Train once in a mode; nobody changes the files of these runs."""

    @cache
    def run(mode: str) -> Finished:
        config = tiny_experiment(data, tiny_base_folder, mode=MODES[mode])
        path = tmp_path_factory.mktemp("run") / mode
        return config, path, train(config, path, Silent())

    return run


@pytest.fixture(params=sorted(MODES))
def finished(request: pytest.FixtureRequest, run_in: Callable[[str], Finished]) -> Finished:
    """A run in each mode."""
    return run_in(request.param)
