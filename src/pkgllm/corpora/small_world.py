"""The corpus ``small_world``: the project's own invented movie world."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pkgllm.corpora.reader import CorpusReader
from pkgllm.corpora.settings import Restated
from pkgllm.files import expanded
from pkgllm.shipped import small_world_folder

if TYPE_CHECKING:
    from pkgllm.corpora.clients import Corpus


@dataclass(frozen=True, slots=True, kw_only=True)
class SmallWorldCorpus(CorpusReader):
    """The project's own invented movie world, written in ReDial's file formats."""

    name: Literal["small_world"] = "small_world"
    folder: str | None = None
    """Folder of the generated files; when absent the shipped one."""
    same_items: Literal["one", "apart"] = "apart"
    """As for other corpora; here namesakes are different films."""

    def read(self, restated_facts: Restated) -> "Corpus":
        """Read the corpus."""
        from pkgllm.corpora.redial_files import read_redial

        folder = expanded(self.folder) if self.folder else small_world_folder() / "redial"
        corpus = read_redial(folder, movie_facts=None, restated_facts=restated_facts)
        return replace(corpus, name="small world")

    def read_folder(self, folder: Path, restated_facts: Restated) -> "Corpus":
        """Read a folder in ReDial's format: the folder itself, or its ``redial`` folder."""
        from pkgllm.corpora.redial_files import read_other_redial

        return read_other_redial(folder, restated_facts)
