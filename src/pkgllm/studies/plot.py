"""Where each point of a study stands in its plot."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pkgllm.config.schema import AnyExperiment
from pkgllm.studies.study import Plot, Point

ABSENT = "none"
"""The place of a point whose configuration lacks the key, or holds null."""


@dataclass(frozen=True, slots=True)
class PlotLayout:
    """Places from left to right, and the points of each line by place."""

    places: tuple[str, ...]
    lines: Mapping[str, Mapping[str, str]]
    """By the values of the line's axes, names of points by place, from left to right."""
    connected: bool
    """Whether the points of a line are joined: they differ in a number, or there are lines."""
    problems: tuple[str, ...]
    """Points that would stand at one place of one line."""


def lay_out_plot(plot: Plot, points: Sequence[tuple[Point, AnyExperiment]]) -> PlotLayout:
    """Return where points stand, in the order of the study, each with its configuration."""
    place_by_point = {point.name: _place(plot.x, point, config) for point, config in points}
    places = sorted(dict.fromkeys(place_by_point.values()), key=_order)
    names_by_line: dict[tuple[str, ...], list[str]] = {}
    common = []
    for point, _ in points:
        line = tuple(point.labels[axis] for axis in plot.lines)
        if _is_on_every_line(plot, point):
            common.append((point, line))
        else:
            names_by_line.setdefault(line, []).append(point.name)
    for point, own in common:
        for line in [line for line in names_by_line if _agrees(plot, point, line)] or [own]:
            names_by_line.setdefault(line, []).append(point.name)
    problems, lines = [], {}
    for line, names in names_by_line.items():
        point_by_place: dict[str, str] = {}
        for name in names:
            place = place_by_point[name]
            if place in point_by_place:
                problems.append(
                    f"plot: {point_by_place[place]} and {name} would stand at one place; name "
                    "another axis in lines"
                )
            point_by_place[place] = name
        lines[", ".join(line)] = {p: point_by_place[p] for p in places if p in point_by_place}
    connected = bool(plot.lines) or all(_number(place) is not None for place in places)
    return PlotLayout(tuple(places), lines, connected, tuple(problems))


def _place(x: str, point: Point, config: AnyExperiment) -> str:
    if x in point.labels:
        return point.labels[x]
    value: Any = config.model_dump(mode="json")
    for part in x.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return ABSENT if value is None else str(value)


def _order(place: str) -> float:
    """Sort numbers by size and keep the order of all else behind them."""
    number = _number(place)
    return math.inf if number is None else number


def _number(place: str) -> float | None:
    try:
        return float(place)
    except ValueError:
        return None


def _is_on_every_line(plot: Plot, point: Point) -> bool:
    labels = plot.on_every_line or {}
    return bool(labels) and all(point.labels[axis] == label for axis, label in labels.items())


def _agrees(plot: Plot, point: Point, line: tuple[str, ...]) -> bool:
    return all(
        axis in (plot.on_every_line or {}) or point.labels[axis] == label
        for axis, label in zip(plot.lines, line, strict=True)
    )
