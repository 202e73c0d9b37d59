"""The file of a table: its rows, what each of them runs, and which settings are tried for it."""

from collections import Counter
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from pkgllm.config.problems import problems_of
from pkgllm.config.section import Section
from pkgllm.studies.plan import text_keys

TableMetric = Literal["precision@10", "recall@10", "hits@1", "hits@3", "hits@10", "mrr"]


class Row(Section):
    """One model of a table: that of a run of its own, or another one of some row's run."""

    name: str
    """Of the row, and of its folder."""
    config: str | None = None
    """The configuration of its run, found as for ``pkgllm train``."""
    of: str | None = None
    """The row whose run ranks this row's model as well, where it has no run of its own."""
    model: str = "tuned"
    """Which of the run's models."""
    set: tuple[str, ...] = ()
    """``KEY=VALUE`` over the configuration."""
    grid: Annotated[dict[str, tuple[str, ...]], BeforeValidator(text_keys)] = Field(
        default_factory=dict
    )
    """Settings that are tried, each a list of ``KEY=VALUE`` by a short name; none where the model
    has nothing to choose."""
    set_when_tuning: tuple[str, ...] = ()
    """``KEY=VALUE`` over the configuration while they are tried, such as fewer people to rank where
    ranking takes long."""
    isolated: str | None = None
    """The row with the same model that exchanges nothing, which a federated one should reach."""
    published: dict[TableMetric, float] = Field(default_factory=dict)
    """What was published of this row, as far as known."""
    differs: str = ""
    """How this row is another one than the published, and why."""


class ResultsTable(Section):
    """The rows of a table, and the row that others are tested against."""

    title: str
    """Stands above the table."""
    rows: Annotated[tuple[Row, ...], Field(min_length=1)]
    """From top to bottom."""
    reference: str
    """The row whose differences from all others are tested."""
    published_in: str
    """Where published numbers come from."""

    @model_validator(mode="before")
    @classmethod
    def _rows_by_name(cls, tree: Any) -> Any:
        """Check each row by itself, so that a problem names the row; other values stay as read."""
        rows = tree.get("rows") if isinstance(tree, dict) else None
        if not isinstance(rows, list | tuple):
            return tree
        checked, lines = [], []
        for number, row in enumerate(rows, start=1):
            name = row.get("name", number) if isinstance(row, dict) else number
            try:
                checked.append(Row.model_validate(row, strict=True))
            except ValidationError as error:
                lines += [f"row {name}: {problem}" for problem in problems_of(error, row, Row)]
        if lines:
            raise ValueError("\n".join(lines))
        return {**tree, "rows": tuple(checked)}

    @model_validator(mode="after")
    def _check(self) -> "ResultsTable":
        if problems := list(self._problems()):
            raise ValueError("\n".join(problems))
        return self

    def row(self, name: str) -> Row:
        """Return the row of a name."""
        return next(row for row in self.rows if row.name == name)

    def owner(self, row: Row) -> Row:
        """Return the row whose run ranks a row's model."""
        return row if row.of is None else self.row(row.of)

    def _problems(self) -> Iterator[str]:
        names = Counter(row.name for row in self.rows)
        for name, count in names.items():
            if count > 1:
                yield f"rows must have names of their own, got {name} {count} times"
        if self.reference not in names:
            yield f"reference must be the name of a row, got {self.reference}"
        with_runs = {row.name for row in self.rows if row.config is not None}
        for row in self.rows:
            if row.isolated is not None and row.isolated not in names:
                yield f"row {row.name}: isolated must be the name of a row, got {row.isolated}"
            if (row.config is None) == (row.of is None):
                yield f"row {row.name}: one of config and of must be given"
            if row.of is not None and row.of not in with_runs:
                yield f"row {row.name}: of must be a row with a config, got {row.of}"
        sizes = {row.name: len(row.grid) for row in self.rows if row.grid}
        if len(set(sizes.values())) > 1:
            counts = ", ".join(f"{name} {size}" for name, size in sizes.items())
            yield f"every row with a grid must try equally many settings, got {counts}"
