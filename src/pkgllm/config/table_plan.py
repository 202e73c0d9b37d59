"""A table's file, found, read, and turned into the configurations of its runs."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from pkgllm.config.load import find_config, load_any_config, read_tree
from pkgllm.config.problems import problems_of
from pkgllm.config.results_table import ResultsTable, Row
from pkgllm.config.schema import AnyExperiment, Experiment
from pkgllm.errors import ConfigError

VALIDATION = "evaluation.part=validation"


@dataclass(frozen=True, slots=True)
class TablePlan:
    """A table and how its rows are run, checked."""

    name: str
    path: Path
    table: ResultsTable

    def config(self, row: Row, winners: Mapping[str, str | None], *, seed: int) -> AnyExperiment:
        """Return the configuration of a row's own run.

        The winners of other rows of the same run are part of it, since they are ranked there.

        Args:
            row: One with a ``config``.
            winners: The chosen setting of each row, by name.
            seed: Of the run.
        """
        of_run = (row, *(other for other in self.table.rows if other.of == row.name))
        chosen = [text for member in of_run for text in _setting(member, winners[member.name])]
        others = [text for member in of_run if member is not row for text in member.set]
        found = self._load(row, (*row.set, *others, *chosen))
        return found.model_copy(update={"seed": seed})

    def tuning(self, row: Row, label: str) -> AnyExperiment:
        """Return the configuration that tries a setting on the validation part, with seed 0.

        Args:
            row: One with a grid; of a row without a run of its own, it is that of the other's.
            label: Of a setting in its grid.
        """
        owner = row if row.of is None else self.table.row(row.of)
        shared = owner.set if owner is row else (*owner.set, *row.set)
        return self._load(row, (*shared, *row.grid[label], VALIDATION))

    def _load(self, row: Row, overrides: tuple[str, ...]) -> AnyExperiment:
        owner = row if row.of is None else self.table.row(row.of)
        assert owner.config is not None
        try:
            return load_any_config(owner.config, overrides)
        except ConfigError as error:
            # There is no --set here, but the same words in the table's file.
            lines = dict.fromkeys(line.removeprefix("--set ") for line in str(error).splitlines())
            raise ConfigError(
                "\n".join(f"{self.path}: row {row.name}: {line}" for line in lines)
            ) from error


def load_table(name_or_path: str) -> TablePlan:
    """Read a table and check every run of it.

    Args:
        name_or_path: A path, a file in ``./configs``, or a shipped one: ``tables/NAME.yaml``.

    Raises:
        ConfigError: If the file cannot be found or read, or for everything in it, and in all the
            configurations that it makes, that is wrong; one line each.

    Example:
        >>> plan = load_table("tables/table2-small-world.yaml")
        >>> plan.table.reference
        'FedPKGLLM NoSyn'
    """
    path = find_config(name_or_path, kind="table")
    tree, problems = read_tree(path)
    rows, lines = _rows(tree.get("rows"))
    table: ResultsTable | None = None
    try:
        if not lines:
            table = ResultsTable.model_validate({**tree, "rows": rows}, strict=True)
    except ValidationError as error:
        problems += problems_of(error, tree, ResultsTable)
    lines += map(str, problems)
    if table is None or lines:
        raise ConfigError("\n".join(f"{path}: {line}" for line in lines))
    plan = TablePlan(path.stem, path, table)
    for row in table.rows:
        try:
            _check(plan, row)
        except ConfigError as error:
            lines += str(error).splitlines()
    if lines:
        raise ConfigError("\n".join(dict.fromkeys(lines)))
    return plan


def _rows(given: object) -> tuple[object, list[str]]:
    """Check each row by itself, so that a problem names the row; other values are left alone."""
    if not isinstance(given, list | tuple):
        return given, []
    rows, lines = [], []
    for number, of_row in enumerate(given, start=1):
        name = of_row.get("name", number) if isinstance(of_row, dict) else number
        try:
            rows.append(Row.model_validate(of_row, strict=True))
        except ValidationError as error:
            lines += [f"row {name}: {problem}" for problem in problems_of(error, of_row, Row)]
    return tuple(rows), lines


def _check(plan: TablePlan, row: Row) -> None:
    winners = {other.name: other.winner() for other in plan.table.rows}
    for label in row.grid:
        plan.tuning(row, label)
    owner = row if row.of is None else plan.table.row(row.of)
    config = plan.config(owner, winners, seed=0)
    tuned = ("tuned", "base") if isinstance(config, Experiment) else ("tuned",)
    ranked = (*tuned, *config.evaluation.baselines.names)
    if row.model not in ranked:
        raise ConfigError(
            f"{plan.path}: row {row.name}: model must be ranked by its run ({', '.join(ranked)}), "
            f"got {row.model}"
        )


def _setting(row: Row, label: str | None) -> tuple[str, ...]:
    return () if label is None else row.grid[label]
