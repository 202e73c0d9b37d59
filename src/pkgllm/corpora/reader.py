"""What every corpus can do: read a catalogue and one graph for each client."""

from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from pkgllm.corpora.settings import Restated
from pkgllm.registry import Choice

if TYPE_CHECKING:
    from pkgllm.corpora.clients import Corpus


@dataclass(frozen=True, slots=True, kw_only=True)
class CorpusReader(Choice):
    """Whose facts are used."""

    credit: ClassVar[str] = ""
    """Note under every table: whose the data are, and under which licence they are given."""

    same_items: Literal["one", "apart"] = "one"
    """Whether entries of the catalogue that name one item count as one: names that differ only in
    case, punctuation, the form of Unicode, or a year that one of them lacks."""

    @abstractmethod
    def read(self, restated_facts: Restated) -> "Corpus":
        """Read the corpus.

        Args:
            restated_facts: Which statement gives a fact its time that was stated more than once.

        Raises:
            DataError: If a file is missing or damaged.
        """

    @abstractmethod
    def read_folder(self, folder: Path, restated_facts: Restated) -> "Corpus":
        """Read other people's facts in the corpus's format, as ``pkgllm evaluate --data`` does.

        Raises:
            DataError: If the folder holds none.
        """
