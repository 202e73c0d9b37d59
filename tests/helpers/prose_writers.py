"""A writer of prompts, for tests of what groups hold."""

from pathlib import Path

import pytest
from transformers import AutoTokenizer

from pkgllm.prompts.prompts import PromptWriter


@pytest.fixture(scope="session")
def prose_writer(tiny_base_folder: Path) -> PromptWriter:
    """A writer with room for every graph, so that no fact is left out."""
    return PromptWriter(
        AutoTokenizer.from_pretrained(tiny_base_folder),
        form="prose",
        instruction="",
        request="Recommend movies to me.",
        max_tokens=100_000,
    )
