"""The corpus ``redial``: dialogues about films, from ReDial's files or from the hub."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from pkgllm.corpora.reader import CorpusReader
from pkgllm.corpora.settings import Restated
from pkgllm.files import expanded

if TYPE_CHECKING:
    from pkgllm.corpora.clients import Corpus


@dataclass(frozen=True, slots=True, kw_only=True)
class RedialCorpus(CorpusReader):
    """Dialogues in ReDial's files (Li et al. 2018)."""

    citation: ClassVar[str] = "Li et al. 2018, arXiv:1812.07617"
    credit: ClassVar[str] = (
        "ReDial: Li et al. 2018, arXiv:1812.07617, CC BY 4.0; the dialogues of the given "
        "files, which may be a part, since one without a worker id belongs to no client."
    )

    name: Literal["redial"] = "redial"
    folder: str | None = None
    """Folder of the files; when absent ``$PKGLLM_DATA/redial``, then ``./data/redial``."""
    hub: str | None = None
    """A data set of the Hugging Face hub to read instead, ``community-datasets/re_dial``."""
    movie_facts: str | None = None
    """``movies.json`` with public facts; when absent ``movie_kg/movies.json`` beside the folder."""

    def read(self, restated_facts: Restated) -> "Corpus":
        """Read the corpus from the folder, or from the hub."""
        from pkgllm.corpora.hub import read_hub
        from pkgllm.corpora.redial_files import find_redial, read_redial

        facts = expanded(self.movie_facts) if self.movie_facts else None
        if self.hub is not None:
            return read_hub(self.hub, movie_facts=facts, restated_facts=restated_facts)
        folder = find_redial(self.folder)
        return read_redial(folder, movie_facts=facts, restated_facts=restated_facts)

    def read_folder(self, folder: Path, restated_facts: Restated) -> "Corpus":
        """Read a folder in ReDial's format: the folder itself, or its ``redial`` folder."""
        from pkgllm.corpora.redial_files import read_other_redial

        return read_other_redial(folder, restated_facts)
