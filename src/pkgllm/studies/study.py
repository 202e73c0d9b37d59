"""The file of a study: one configuration over a grid of settings and several seeds."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, model_validator

from pkgllm.config.fields import known_keys
from pkgllm.config.schema import KINDS
from pkgllm.config.section import NotNegative, Section
from pkgllm.registry import did_you_mean
from pkgllm.studies.plan import number_as_text, text_keys

_SAFE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+=-]*")
_LONGEST_NAME = 200
"""Characters of a run's folder that every file system takes, with some to spare."""

MetricName = Literal["hits@1", "hits@3", "hits@10", "hits@50", "mrr", "adjusted_mrr", "ndcg@10"]


def _one_or_more(value: Any) -> Any:
    return tuple(map(number_as_text, value if isinstance(value, tuple | list) else (value,)))


def _labels(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return {number_as_text(axis): number_as_text(label) for axis, label in value.items()}


def _exclusions(value: Any) -> Any:
    if not isinstance(value, tuple | list):
        return value
    return tuple(
        {number_as_text(axis): _one_or_more(labels) for axis, labels in entry.items()}
        if isinstance(entry, dict)
        else entry
        for entry in value
    )


Labels = Annotated[dict[str, str], BeforeValidator(_labels)]
"""One value of some axes."""
Names = Annotated[tuple[str, ...], BeforeValidator(_one_or_more)]
"""A name, or a list of them."""


class Plot(Section):
    """What is drawn: every metric against one axis, with a line for each value of others."""

    x: str
    """An axis, or a key of the configuration such as ``training.learning_rate``. Its values stand
    at equal distances: numbers by size with ``inf`` last, others in the order of the study."""
    lines: Names = ()
    """Axes with a line for each of their values, or for each combination of them."""
    on_every_line: Labels | None = None
    """Values of those axes that make no line of their own: their points end every other line, as
    the one without privacy does where the lines are privacy units."""
    metrics: tuple[MetricName, ...] = ()
    """Which are drawn; all of the study's when empty."""


@dataclass(frozen=True, slots=True)
class Point:
    """One combination of the axes' values."""

    name: str
    labels: Mapping[str, str]
    """By axis."""
    overrides: tuple[str, ...]


class Study(Section):
    """A grid of settings over one configuration, each with every seed."""

    base: str
    """The configuration that every run begins with, found as for ``pkgllm train``."""
    set: tuple[str, ...] = ()
    """``KEY=VALUE`` for every run."""
    grid: Annotated[dict[str, dict[str, tuple[str, ...]]], BeforeValidator(text_keys)]
    """For each axis its values by a short name, each a list of ``KEY=VALUE``. Later axes win."""
    exclude: Annotated[tuple[dict[str, tuple[str, ...]], ...], BeforeValidator(_exclusions)] = ()
    """Combinations that are left out, each as axes with a value, or a list of them."""
    seeds: tuple[NotNegative, ...] = (0,)
    """Each point is run once with each."""
    metrics: tuple[MetricName, ...] = ("hits@10", "mrr")
    """What the summary shows."""
    models: tuple[str, ...] = ("tuned",)
    """Whose numbers it shows. The first one's are drawn and tested; others need not be ranked by
    every run."""
    reference: Labels | None = None
    """The point that the others are tested against, as a value for each axis; none when absent."""
    plot: Plot | None = None
    """What is drawn; nothing when absent."""

    def points(self) -> tuple[Point, ...]:
        """Return what is run, in the order of the grid, its last axis first."""
        points = []
        for values in product(*self.grid.values()):
            labels = dict(zip(self.grid, values, strict=True))
            excluded = any(
                all(labels[axis] in names for axis, names in entry.items())
                for entry in self.exclude
            )
            if not excluded:
                own = (text for axis, label in labels.items() for text in self.grid[axis][label])
                points.append(Point("-".join(values), labels, (*self.set, *own)))
        return tuple(points)

    @model_validator(mode="after")
    def _check(self) -> "Study":
        problems = [*self._bad_entries(), *self._unknown_names()]
        if not problems:
            points = self.points()
            problems += _bad_names(points)
            if not points:
                problems.append("exclude leaves no point of the grid")
            if self.reference is not None and not any(p.labels == self.reference for p in points):
                problems.append("reference must be a point that is run, and exclude leaves it out")
        if problems:
            raise ValueError("\n".join(problems))
        return self

    def _bad_entries(self) -> Iterator[str]:
        if not self.grid:
            yield "grid must hold at least one axis"
        for axis, values in self.grid.items():
            if not values:
                yield f"grid.{axis} must hold at least one value"
            for name in (axis, *values):
                if not _SAFE.fullmatch(name):
                    yield (
                        f"grid.{axis}: names become folders, so they must be letters and digits, "
                        f"and . _ + = - after the first; got {name!r}"
                    )
        for key in ("seeds", "metrics", "models"):
            entries = getattr(self, key)
            if not entries:
                yield f"{key} must hold at least one"
            if twice := [str(entry) for entry, count in Counter(entries).items() if count > 1]:
                yield f"{key} must hold each once, got {', '.join(twice)} twice"
        of_grid = (text for axis in self.grid.values() for texts in axis.values() for text in texts)
        if any(text.partition("=")[0].strip() == "seed" for text in (*self.set, *of_grid)):
            yield "seed is set by seeds, so no override may set it"

    def _unknown_names(self) -> Iterator[str]:
        for number, entry in enumerate(self.exclude, start=1):
            if not entry:
                yield f"exclude {number} must name an axis, or it leaves out everything"
            for axis, names in entry.items():
                yield from self._unknown(f"exclude {number}", axis, names)
        if self.reference is not None:
            for axis, label in self.reference.items():
                yield from self._unknown("reference", axis, (label,))
            if missing := [axis for axis in self.grid if axis not in self.reference]:
                yield f"reference must name a value for each axis, lacks {', '.join(missing)}"
        if self.plot is None:
            return
        if self.plot.x not in self.grid and self.plot.x not in {
            ".".join(path) for kind in KINDS for path in known_keys(kind)
        }:
            yield (
                f"plot.x must be an axis ({', '.join(self.grid)}) or a key of the configuration, "
                f"got {self.plot.x!r}"
            )
        for axis in self.plot.lines:
            yield from self._unknown("plot.lines", axis, ())
            if axis == self.plot.x:
                yield f"plot.lines must not hold {axis}, which is plot.x"
        for axis, label in (self.plot.on_every_line or {}).items():
            yield from self._unknown("plot.on_every_line", axis, (label,))
            if axis not in self.plot.lines:
                yield f"plot.on_every_line: {axis} must stand in plot.lines"
        if absent := [metric for metric in self.plot.metrics if metric not in self.metrics]:
            yield f"plot.metrics must stand in metrics as well, got {', '.join(absent)}"

    def _unknown(self, place: str, axis: str, names: Iterable[str]) -> Iterator[str]:
        if axis not in self.grid:
            yield f"{place}: unknown axis {axis!r} ({_hint(axis, self.grid)})"
            return
        for name in names:
            if name not in self.grid[axis]:
                yield f"{place}: axis {axis} has no value {name!r} ({_hint(name, self.grid[axis])})"


def _bad_names(points: Iterable[Point]) -> Iterator[str]:
    # Some file systems take names that differ in case alone for one.
    counted = Counter(point.name.casefold() for point in points)
    if twice := [name for name, count in counted.items() if count > 1]:
        yield (
            f"grid: several points would share the name {', '.join(twice)}; rename some of their "
            "values"
        )
    if long := [name for name in counted if len(name) > _LONGEST_NAME]:
        yield f"grid: names of points must have at most {_LONGEST_NAME} characters, got {long[0]}"


def _hint(name: str, known: Iterable[str]) -> str:
    names = list(known)
    close = did_you_mean(name, names)
    return f"did you mean {close}?" if close else f"known are {', '.join(names)}"
