"""What the files of a run hold, read back and checked: one type for each kind of record.

A damaged file ends in a sentence that names the file, the line and the key.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError, model_validator

from pkgllm import json_text
from pkgllm.errors import RunError
from pkgllm.files import cannot

Mode = Literal["greedy", "constrained", "sampled", "ranked"]
"""How a list is made: three ways to write one, and the best candidates of an exact ranking."""


class Record(BaseModel):
    """A JSON object of a run's files; keys that a reader does not need are passed over."""

    model_config = ConfigDict(frozen=True, strict=True)

    advice: ClassVar[str] = "train the run again"
    """What repairs a damaged record."""


class RunOrigin(Record):
    """The origin of a run: ``provenance.json``."""

    digests: dict[str, str]
    """SHA-256 by what was read."""
    date: str | None = None
    packages: dict[str, str | None] = {}
    configuration: dict[str, Any] | None = None
    """As it was when the run began; None in runs of earlier versions."""
    adapter: str | None = None
    """SHA-256 of the trained adapters; None before, and in runs of earlier versions."""


class SplitClient(Record):
    """What is held out of one client."""

    seen_in_training: bool


class RecordedSplit(Record):
    """Who is unseen and what is held out: ``split.json``."""

    digest: str | None = None
    """None where clients trained on their own machines."""
    clients: dict[str, SplitClient] = {}


class RecordedLikes(Record):
    """What each training client likes: ``liked_in_training.json``."""

    clients: list[list[str]]


class RoundMetrics(Record):
    """A line of ``metrics.jsonl`` for a round; further keys are kept."""

    model_config = ConfigDict(extra="allow")

    round_num: Annotated[int, Field(ge=1)]
    cohort: list[Any] = []
    failed: dict[Any, Any] = {}
    """Why the updates of clients are missing, by client."""


class ClientMetrics(Record):
    """A line of ``metrics.jsonl`` for a client that trains alone."""

    loss: float | None = None


class EpochMetrics(Record):
    """A line of ``metrics.jsonl`` for an epoch of an embedding; further keys are kept."""

    model_config = ConfigDict(extra="allow")

    stage: str
    epoch: int
    loss: FiniteFloat


class RoundValidation(Record):
    """A line of ``validation.jsonl``; further keys are kept."""

    model_config = ConfigDict(extra="allow")

    round_num: Annotated[int, Field(ge=1)]
    clients: int
    queries: int
    hits_at_10: float = Field(alias="hits@10")
    mrr: float


class ModelRanks(Record):
    """What one model answers to one client's queries."""

    ranks: list[float]
    """Realistic ranks, one for each held-out item."""
    top: list[str]
    """Ids of the best candidates, best first; empty after a failure."""
    failed: bool


class ClientRecord(Record):
    """A line of ``predictions.jsonl``: one client's queries, and every model's answers."""

    advice: ClassVar[str] = "rank the run again with pkgllm evaluate"

    client: str
    seen_in_training: bool
    held_out: Annotated[list[str], Field(min_length=1)]
    candidates: int
    """Before the other held-out items are filtered."""
    models: Annotated[dict[str, ModelRanks], Field(min_length=1)]

    @model_validator(mode="after")
    def _possible(self) -> "ClientRecord":
        queries = len(self.held_out)
        if len(set(self.held_out)) != queries or self.candidates < queries:
            raise ValueError("held-out items must be distinct ids of candidates")
        # The other held-out items are filtered, so none of them can stand before one.
        last = self.candidates - queries + 1
        for model, answer in self.models.items():
            if len(answer.ranks) != queries or not all(1 <= rank <= last for rank in answer.ranks):
                raise ValueError(f"model {model!r} must have {queries} ranks from 1 to {last}")
        return self


class ListRecord(Record):
    """A line of ``lists.jsonl``: one client's list by one model."""

    advice: ClassVar[str] = "run pkgllm evaluate --protocol lists again"

    client: str
    model: str
    mode: Mode
    sample: int
    text: str | None
    finished: bool
    failed: bool
    lines: int
    linked: list[str]

    @model_validator(mode="after")
    def _possible(self) -> "ListRecord":
        if self.lines < len(self.linked):
            raise ValueError(f"lines must be at least {len(self.linked)}, one for each linked item")
        if self.text is None and not self.failed and self.mode != "ranked":
            raise ValueError("text must be the answer that was written")
        return self


class RunFailure(Record):
    """A line of ``failures.jsonl``: why a run of a study failed."""

    advice: ClassVar[str] = "delete the file"

    run: str
    """Its folder below that of the study."""
    reason: str


class UndesirableShare(Record):
    """Of the examples of each client."""

    min: float
    median: float
    max: float


class PartitionSummary(Record):
    """What a partition left, in numbers of all clients together: ``partition.json``."""

    name: str
    parameters: dict[str, float] = {}
    clients: int
    clients_dropped: int
    groups: int
    desirable: int
    undesirable: int
    undesirable_share: UndesirableShare
    unusable_groups: int = 0
    """Left out because the objective cannot learn from them."""
    unusable_clients: int = 0


class LedgerHead(Record):
    """The last entry of a privacy ledger that a device wrote: ``privacy_head.json``."""

    advice: ClassVar[str] = "restore it from a copy"

    length: int
    digest: str


R = TypeVar("R", bound=Record)


def read_object(path: Path, advice: str = Record.advice) -> dict[str, Any]:
    """Read a file that holds one JSON object.

    Raises:
        RunError: If it cannot be read, or holds something else.
    """
    value = _parse(_text(path, advice), str(path), advice)
    if not isinstance(value, dict):
        raise RunError(f"{path}: must hold a JSON object, got {value!r:.60}; {advice}")
    return value


def read_record(path: Path, kind: type[R]) -> R:
    """Read a file that holds one record.

    Raises:
        RunError: If it cannot be read or is damaged.
    """
    return checked(read_object(path, kind.advice), kind, str(path))


def read_records(path: Path, kind: type[R]) -> Iterator[tuple[str, R]]:
    """Yield the records of a file that was written whole, each with its place for messages.

    Raises:
        RunError: If the file cannot be read or a line is damaged.
    """
    text = _text(path, kind.advice).removesuffix("\n")
    # Not splitlines, which would cut at other characters than the one that ends a record.
    for number, line in enumerate(text.split("\n") if text else (), start=1):
        place = f"{path}: line {number}"
        yield place, checked(_parse(line, place, kind.advice), kind, place)


def read_grown(path: Path) -> list[dict[str, Any]]:
    """Read the lines of a file that grew line by line; none where there is no file.

    A last line without its end was torn by a crash and counts as never written.

    Raises:
        RunError: If the file cannot be read, or another line is not a JSON object.
    """
    try:
        lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    except OSError as error:
        raise cannot("read", path, error) from error
    records = []
    for number, line in enumerate(lines, start=1):
        place = f"{path}: line {number}"
        record = _parse(line, place, Record.advice)
        if not isinstance(record, dict):
            raise RunError(f"{place}: must be a JSON object, got {record!r:.60}")
        records.append(record)
    return records


def read_grown_records(path: Path, kind: type[R]) -> Iterator[tuple[str, R]]:
    """Yield the lines of a file that grew line by line as records, each with its place.

    Raises:
        RunError: If the file cannot be read or a line is damaged.
    """
    for number, record in enumerate(read_grown(path), start=1):
        place = f"{path}: line {number}"
        yield place, checked(record, kind, place)


@contextmanager
def damage_named(place: object) -> Iterator[None]:
    """Turn what damaged files make a reader stumble over into an error that names their place.

    The readers above check what they know; values that nobody checked, such as further keys of a
    line, may be of any type or size.

    Raises:
        RunError: In place of an exception that a wrong value raises.
    """
    try:
        yield
    except (
        ArithmeticError,
        AttributeError,
        LookupError,
        RecursionError,
        TypeError,
        ValueError,
    ) as e:
        raise RunError(
            f"{place}: a file in it does not hold what it must ({type(e).__name__}: {e}); restore "
            f"it, or {Record.advice}"
        ) from e


def checked(value: object, kind: type[R], place: str) -> R:
    """Return a JSON value as a record.

    Raises:
        RunError: If it is something else.
    """
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        (first, *_) = error.errors(include_url=False, include_input=False)
        key = ".".join(map(str, first["loc"]))
        match first["type"]:
            case "missing":
                problem = f"must hold {key}"
            case "model_type":
                problem = f"{key or 'it'} must be a JSON object"
            case "value_error":
                problem = str(first["ctx"]["error"])
            case _:
                problem = f"{key}: {first['msg'].replace('Input should be', 'must be')}"
        raise RunError(f"{place}: {problem}; {kind.advice}") from error


def _text(path: Path, advice: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise RunError(f"{path}: must be text in UTF-8, got other bytes; {advice}") from error
    except OSError as error:
        raise cannot("read", path, error) from error


def _parse(text: str | bytes, place: str, advice: str) -> Any:
    try:
        return json_text.loads(text if isinstance(text, str) else text.decode())
    except ValueError as error:
        raise RunError(f"{place}: must be JSON, but {error}; {advice}") from error
