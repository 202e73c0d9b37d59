"""A conversation: opinions in a person's messages are added to their graph if they agree."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from pkgllm.assistant.editing import changes
from pkgllm.assistant.extraction import Extraction, Extractor, Turn
from pkgllm.assistant.recommend import Recommendation
from pkgllm.graph.personal_file import change
from pkgllm.graph.personal_graph import Provenance
from pkgllm.graph.personal_record import PersonalRecord
from pkgllm.graph.rdf import read_record

Recommend = Callable[[PersonalRecord, str], Sequence[Recommendation]]
"""Answers a message from a person's record."""


@dataclass(frozen=True, slots=True)
class Understood:
    """The edit that a message implies, before anything is written."""

    extraction: Extraction
    lines: tuple[str, ...]
    """One line for each change; none if the graph would stay the same."""


@dataclass(slots=True)
class Conversation:
    """One person's conversation about one file.

    Args:
        path: The person's graph.
        extractor: Reads the person's messages.
        recommend: Answers them.
    """

    path: Path
    extractor: Extractor
    recommend: Recommend
    _started: datetime = field(init=False, default_factory=lambda: _now())
    _offered: tuple[Recommendation, ...] = field(init=False, default=())

    def understand(self, message: str) -> Understood:
        """Return what a message would change, without writing.

        The extractor also reads the recommendations of the last turn, to resolve ``the first
        one``.

        Raises:
            DataError: If the file cannot be read or contains no personal graph.
        """
        turns = [Turn("person", message)]
        if self._offered:
            offered = "\n".join(f"How about {one.item.name}?" for one in self._offered)
            turns.insert(0, Turn("partner", offered))
        extraction = self.extractor.extract(turns)
        before = read_record(self.path)
        after = self._edited(before, extraction)
        lines = () if after == before else tuple(changes(after, after.edits[-1]))
        return Understood(extraction, lines)

    def write(self, understood: Understood) -> PersonalRecord:
        """Write the changes as one edit, and return the record after it.

        Raises:
            DataError: If the file cannot be read or contains no personal graph.
            RunError: If the file cannot be written, or another process is changing it.
        """
        _, after = change(self.path, lambda record: self._edited(record, understood.extraction))
        return after

    def answer(self, message: str) -> Sequence[Recommendation]:
        """Recommend from the current graph, and remember the recommendations.

        Raises:
            PkgllmError: If there is nothing to recommend, or the graph cannot be read.
        """
        self._offered = tuple(self.recommend(read_record(self.path), message))
        return self._offered

    def _edited(self, record: PersonalRecord, extraction: Extraction) -> PersonalRecord:
        source = Provenance("own_statement", f"chat/{self._started.isoformat()}")
        return record.edited(
            "chat", _now(), source, verdicts=extraction.verdicts, wishes=extraction.wishes
        )


def _now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)
