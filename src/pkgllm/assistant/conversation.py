"""A conversation: what is said for certain is written if the person agrees, the rest is asked."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from pkgllm.assistant.clauses import units_of
from pkgllm.assistant.editing import as_said_before, changes
from pkgllm.assistant.extraction import Extraction, Extractor, Turn
from pkgllm.assistant.filters import wished_constraints
from pkgllm.assistant.guidance import Constraints
from pkgllm.assistant.intents import Intent, intent_of
from pkgllm.assistant.mentions import MentionFinder
from pkgllm.assistant.recommend import NO_CONSTRAINTS
from pkgllm.assistant.requests import Request, Response
from pkgllm.assistant.scopes import Scopes
from pkgllm.assistant.tokens import sentences
from pkgllm.corpora.catalogue import Item
from pkgllm.graph.personal_file import change
from pkgllm.graph.personal_graph import Provenance, Relation
from pkgllm.graph.personal_record import PersonalRecord
from pkgllm.graph.rdf import read_record

Respond = Callable[[PersonalRecord, Request], Response]
"""Answers a request from a person's record."""


@dataclass(frozen=True, slots=True)
class Understood:
    """What a message means, before anything is written."""

    intents: frozenset[Intent]
    """Of its sentences."""
    extraction: Extraction
    lines: tuple[str, ...]
    """One line for each change that is certain; none if the graph would stay the same."""
    constraints: Constraints
    """What the wishes in it require of the recommendations."""

    @property
    def wants_recommendations(self) -> bool:
        """Whether it is to be answered by a list: not if it asks for help or reasons only."""
        return bool(self.intents - {"help", "why"}) or not self.intents


@dataclass(slots=True)
class Conversation:
    """One person's conversation about one file.

    Args:
        path: The person's graph.
        extractor: Reads the person's messages.
        finder: Finds the names in a wish.
        scopes: Of the catalogue, for the constraints in a wish.
        respond: Answers them.
        k: Number of recommendations to each message.
    """

    path: Path
    extractor: Extractor
    finder: MentionFinder
    scopes: Scopes
    respond: Respond
    k: int
    _started: datetime = field(init=False, default_factory=lambda: _now())
    _offer: tuple[PersonalRecord, Request, Response] | None = field(init=False, default=None)

    def understand(self, message: str) -> Understood:
        """Return what a message means and would change, without writing.

        The extractor also reads the recommendations of the last turn, to resolve ``the first
        one``.

        Raises:
            DataError: If the file cannot be read or contains no personal graph.
        """
        turns = [Turn("person", message)]
        if self._offer is not None:
            offered = self._offer[2].recommendations
            lines = "\n".join(f"How about {one.item.name}?" for one in offered)
            turns.insert(0, Turn("partner", lines))
        mentions = self.finder.find(message)
        intents = frozenset(
            intent_of(units_of(sentence), ends_with=sentence.ends_with)
            for sentence in sentences(message, mentions)
        )
        extraction = self.extractor.extract(turns)
        constraints = wished_constraints(message, mentions, self.scopes)
        return Understood(intents, extraction, self.lines(extraction), constraints)

    def lines(self, extraction: Extraction) -> tuple[str, ...]:
        """Return one line for each change that an extraction implies."""
        before = read_record(self.path)
        after = self._edited(before, extraction)
        return () if after == before else tuple(changes(after, after.edits[-1]))

    def agreed(
        self, understood: Understood, answers: Sequence[tuple[Item, Relation]]
    ) -> Understood:
        """Return what was understood with the person's answers to the questions in it."""
        extraction = understood.extraction.agreed(answers)
        return replace(understood, extraction=extraction, lines=self.lines(extraction))

    def write(self, understood: Understood) -> PersonalRecord:
        """Write the changes as one edit, and return the record after it.

        Raises:
            DataError: If the file cannot be read or contains no personal graph.
            RunError: If the file cannot be written, or another process is changing it.
        """
        _, after = change(self.path, lambda record: self._edited(record, understood.extraction))
        return after

    def answer(self, message: str, constraints: Constraints = NO_CONSTRAINTS) -> Response:
        """Recommend from the current graph, and remember the recommendations.

        Raises:
            PkgllmError: If there is nothing to recommend, or the graph cannot be read.
        """
        record = read_record(self.path)
        request = Request(text=message, constraints=constraints, k=self.k)
        response = self.respond(record, request)
        self._offer = (record, request, response)
        return response

    def reasons(self) -> Response | None:
        """Return the last recommendations with their reasons; None before the first ones.

        Raises:
            PkgllmError: As :meth:`answer`.
        """
        if self._offer is None:
            return None
        record, request, _ = self._offer
        return self.respond(record, replace(request, why=True))

    def _edited(self, record: PersonalRecord, extraction: Extraction) -> PersonalRecord:
        source = Provenance("own_statement", f"chat/{self._started.isoformat()}")
        verdicts = [as_said_before(verdict, record) for verdict in extraction.verdicts]
        return record.edited("chat", _now(), source, verdicts=verdicts, wishes=extraction.wishes)


def _now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)
