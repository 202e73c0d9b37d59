"""A table of results: its rows, what each of them runs, and how its settings were chosen."""

from collections import Counter
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from pkgllm.config.problems import problems_of
from pkgllm.config.section import Section
from pkgllm.config.study import labelled

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
    grid: Annotated[dict[str, tuple[str, ...]], BeforeValidator(labelled)] = Field(
        default_factory=dict
    )
    """Settings that were tried, each a list of ``KEY=VALUE`` by a short name; none where the model
    has nothing to choose."""
    set_when_tuning: tuple[str, ...] = ()
    """``KEY=VALUE`` over the configuration while they are tried, such as fewer people to rank where
    ranking takes long."""
    validation: Annotated[dict[str, float], BeforeValidator(labelled)] = Field(default_factory=dict)
    """MRR on the validation part of each of them; the largest is the one that is used."""
    isolated: str | None = None
    """The row with the same model that exchanges nothing, which a federated one should reach."""
    published: dict[TableMetric, float] = Field(default_factory=dict)
    """What was published of this row, as far as known."""
    differs: str = ""
    """How this row is another one than the published, and why."""

    def winner(self) -> str | None:
        """Return the setting of the largest validation MRR, the first of equal ones."""
        if not self.validation:
            return None
        return max(self.grid, key=lambda label: self.validation[label])


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
        """Check each row by itself, so that a problem names the row; other values are left."""
        rows = tree.get("rows") if isinstance(tree, dict) else None
        if not isinstance(rows, list | tuple):
            return tree
        checked, lines = [], []
        for number, of_row in enumerate(rows, start=1):
            name = of_row.get("name", number) if isinstance(of_row, dict) else number
            try:
                checked.append(Row.model_validate(of_row, strict=True))
            except ValidationError as error:
                lines += [f"row {name}: {problem}" for problem in problems_of(error, of_row, Row)]
        if lines:
            raise ValueError("\n".join(lines))
        return {**tree, "rows": tuple(checked)}

    @model_validator(mode="after")
    def _possible(self) -> "ResultsTable":
        if problems := [*self._bad_names(), *self._bad_sources(), *self._bad_grids()]:
            raise ValueError("\n".join(problems))
        return self

    def row(self, name: str) -> Row:
        """Return the row of a name."""
        return next(row for row in self.rows if row.name == name)

    def _bad_names(self) -> Iterator[str]:
        names = Counter(row.name for row in self.rows)
        for name, count in names.items():
            if count > 1:
                yield f"rows must have names of their own, got {name} {count} times"
        if self.reference not in names:
            yield f"reference must be the name of a row, got {self.reference}"
        for row in self.rows:
            if row.isolated is not None and row.isolated not in names:
                yield f"row {row.name}: isolated must be the name of a row, got {row.isolated}"

    def _bad_sources(self) -> Iterator[str]:
        own = {row.name for row in self.rows if row.config is not None}
        for row in self.rows:
            if (row.config is None) == (row.of is None):
                yield f"row {row.name}: one of config and of must be given"
            if row.of is not None and row.of not in own:
                yield f"row {row.name}: of must be a row with a config, got {row.of}"

    def _bad_grids(self) -> Iterator[str]:
        sizes = {row.name: len(row.grid) for row in self.rows if row.grid}
        if len(set(sizes.values())) > 1:
            told = ", ".join(f"{name} {size}" for name, size in sizes.items())
            yield f"every row with a grid must try equally many settings, got {told}"
        for row in self.rows:
            if row.validation and row.validation.keys() != row.grid.keys():
                yield f"row {row.name}: validation must have a value for each setting of its grid"
