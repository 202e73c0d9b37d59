"""A table's file turned into the configurations of its runs, with the settings of its tuning."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import FiniteFloat, TypeAdapter, ValidationError

from pkgllm.config.schema import AnyExperiment
from pkgllm.errors import ConfigError
from pkgllm.studies.plan import PlannedRun, planned_config, ranked_models, read_plan
from pkgllm.studies.table import ResultsTable, Row

Tuning = Mapping[str, Mapping[str, float]]
"""MRR on the validation part of every setting that was tried, by row and setting."""

_TRIAL = ("evaluation.part=validation", "evaluation.base_model=false")
"""What a run ranks that tries a setting; the base model is the same for all of them."""


@dataclass(frozen=True, slots=True)
class TablePlan:
    """A table and how its rows are run, checked."""

    name: str
    path: Path
    table: ResultsTable
    tuning: Tuning

    def winner(self, row: Row) -> str | None:
        """Return the setting of the largest MRR, the first of equal ones; None without values."""
        values = self.tuning.get(row.name)
        return max(row.grid, key=lambda label: values[label]) if values else None

    def runs(self, seeds: Sequence[int]) -> tuple[PlannedRun, ...]:
        """Return the runs of all rows, seed by seed."""
        return tuple(
            self.run(row, seed)
            for seed in seeds
            for row in self.table.rows
            if row.config is not None
        )

    def run(self, row: Row, seed: int) -> PlannedRun:
        """Return the run of a row with a ``config``, for itself and the rows ``of`` it."""
        others = [other for other in self.table.rows if other.of == row.name]
        settings: list[str] = []
        for member in (row, *others):
            label = self.winner(member)
            settings += () if label is None else member.grid[label]
        shared = [text for member in (row, *others) for text in member.set]
        config = self._config(row, (*shared, *settings)).model_copy(update={"seed": seed})
        return PlannedRun(self.place(row, seed), row.name, config)

    def place(self, row: Row, seed: int) -> str:
        """Return where the run that ranks a row's model lies, below the folder of the table."""
        return f"rows/{folder_name(self.table.owner(row).name)}/seed{seed}"

    def trial(self, row: Row, label: str) -> PlannedRun:
        """Return the run that tries a setting of a row's grid on validation, with seed 0.

        A row without a run of its own is tried in the configuration of the run that ranks it.
        """
        owner = self.table.owner(row)
        shared = owner.set if owner is row else (*owner.set, *row.set)
        config = self._config(row, (*shared, *row.grid[label], *row.set_when_tuning, *_TRIAL))
        place = f"tuning/{folder_name(row.name)}/{folder_name(label)}"
        return PlannedRun(place, row.name, config)

    def _config(self, row: Row, overrides: tuple[str, ...]) -> AnyExperiment:
        base = self.table.owner(row).config
        assert base is not None
        try:
            return planned_config(base, overrides)
        except ConfigError as error:
            lines = str(error).splitlines()
            raise ConfigError(
                "\n".join(f"{self.path}: row {row.name}: {line}" for line in lines)
            ) from error


def folder_name(text: str) -> str:
    """Return a name for a folder.

    Example:
        >>> folder_name("FedPKGLLM NoSyn"), folder_name("EASE^R")
        ('fedpkgllm-nosyn', 'ease-r')
    """
    return re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-")


def load_table(name_or_path: str) -> TablePlan:
    """Read a table, with the values of its tuning beside it, and check every run.

    The values stand in ``NAME.tuning.json`` beside ``NAME.yaml``; nothing is tuned without it.

    Args:
        name_or_path: A path, a file in ``./configs``, or a shipped one: ``tables/NAME.yaml``.

    Raises:
        ConfigError: If a file cannot be found or read, or for everything in it, and in all the
            configurations that it makes, that is wrong; one line each.

    Example:
        >>> plan = load_table("tables/table2-small-world.yaml")
        >>> plan.table.reference, plan.winner(plan.table.row("HAKE"))
        ('FedPKGLLM NoSyn', '0.003')
    """
    path, table = read_plan(name_or_path, ResultsTable, kind="table")
    plan = TablePlan(path.stem, path, table, read_tuning(path.with_suffix(".tuning.json"), table))
    lines: list[str] = []
    for row in table.rows:
        try:
            _check(plan, row)
        except ConfigError as error:
            lines += str(error).splitlines()
    if lines:
        raise ConfigError("\n".join(dict.fromkeys(lines)))
    return plan


def read_tuning(path: Path, table: ResultsTable) -> Tuning:
    """Read what a tuning wrote; nothing where there is no file.

    Raises:
        ConfigError: If it holds something else than numbers for every setting of some rows.
    """
    if not path.exists():
        return {}
    again = "take the file away, and tune again with --tune"
    try:
        text = path.read_text(encoding="utf-8")
        tuning = TypeAdapter(dict[str, dict[str, FiniteFloat]]).validate_json(text, strict=True)
    except (OSError, UnicodeDecodeError, ValidationError) as error:
        raise ConfigError(
            f"{path}: must hold a number for each setting by row, as JSON: {error}; {again}"
        ) from error
    rows = {row.name: row for row in table.rows}
    lines = []
    for name, values in tuning.items():
        if name not in rows:
            lines.append(f"{path}: row {name} does not stand in the table; {again}")
        elif values.keys() != rows[name].grid.keys():
            lines.append(
                f"{path}: row {name}: must have a number for each setting of its grid "
                f"({', '.join(rows[name].grid)}), got {values}; {again}"
            )
    if lines:
        raise ConfigError("\n".join(lines))
    return tuning


def _check(plan: TablePlan, row: Row) -> None:
    for label in row.grid:
        plan.trial(row, label)
    ranked = ranked_models(plan.run(plan.table.owner(row), 0).config)
    if row.model not in ranked:
        raise ConfigError(
            f"{plan.path}: row {row.name}: model must be ranked by its run ({', '.join(ranked)}), "
            f"got {row.model}"
        )
