"""A table's file, found, read, and turned into the configurations of its runs."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pkgllm.config.plan_files import load_planned, ranked_models, read_plan
from pkgllm.config.results_table import ResultsTable, Row
from pkgllm.config.schema import AnyExperiment
from pkgllm.errors import ConfigError

_TO_CHOOSE = ("evaluation.part=validation", "evaluation.base_model=false")
"""What a run ranks that tries a setting; the base model is the same for all of them."""


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
        return self._load(row, (*shared, *row.grid[label], *row.set_when_tuning, *_TO_CHOOSE))

    def _load(self, row: Row, overrides: tuple[str, ...]) -> AnyExperiment:
        owner = row if row.of is None else self.table.row(row.of)
        assert owner.config is not None
        try:
            return load_planned(owner.config, overrides)
        except ConfigError as error:
            lines = str(error).splitlines()
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
    path, table = read_plan(name_or_path, ResultsTable, kind="table")
    plan = TablePlan(path.stem, path, table)
    lines: list[str] = []
    for row in table.rows:
        try:
            _check(plan, row)
        except ConfigError as error:
            lines += str(error).splitlines()
    if lines:
        raise ConfigError("\n".join(dict.fromkeys(lines)))
    return plan


def _check(plan: TablePlan, row: Row) -> None:
    winners = {other.name: other.winner() for other in plan.table.rows}
    for label in row.grid:
        plan.tuning(row, label)
    owner = row if row.of is None else plan.table.row(row.of)
    config = plan.config(owner, winners, seed=0)
    ranked = ranked_models(config)
    if row.model not in ranked:
        raise ConfigError(
            f"{plan.path}: row {row.name}: model must be ranked by its run ({', '.join(ranked)}), "
            f"got {row.model}"
        )


def _setting(row: Row, label: str | None) -> tuple[str, ...]:
    return () if label is None else row.grid[label]
