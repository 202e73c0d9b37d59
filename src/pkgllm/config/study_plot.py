"""Where each point of a study stands in its plot."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pkgllm.config.schema import AnyExperiment
from pkgllm.config.study import Plot, Point

ABSENT = "none"
"""The place of a point whose configuration lacks the key, or holds null."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Places from left to right, and the points of each line by place."""

    places: tuple[str, ...]
    lines: Mapping[str, Mapping[str, str]]
    """By the values of the line's axes, names of points by place, from left to right."""
    connected: bool
    """Whether the points of a line belong to one another in their order."""
    clashes: tuple[tuple[str, str], ...]
    """Points that would stand at one place of one line."""


def lay_out_plot(plot: Plot, points: Sequence[tuple[Point, AnyExperiment]]) -> Layout:
    """Return where points stand.

    Args:
        plot: What is drawn.
        points: In the order of the study, each with its configuration.
    """
    place_of = {point.name: _place(plot.x, point, config) for point, config in points}
    places = sorted(dict.fromkeys(place_of.values()), key=_order)
    own = [point for point, _ in points if not _on_every_line(plot, point)]
    lines: dict[tuple[str, ...], list[str]] = {}
    for point in own:
        lines.setdefault(_line(plot, point), []).append(point.name)
    for point, _ in points:
        if _on_every_line(plot, point):
            others = [line for line in lines if _agrees(plot, point, line)]
            for line in others or [_line(plot, point)]:
                lines.setdefault(line, []).append(point.name)
    clashes, drawn = [], {}
    for line, names in lines.items():
        by_place: dict[str, str] = {}
        for name in names:
            if place_of[name] in by_place:
                clashes.append((by_place[place_of[name]], name))
            by_place[place_of[name]] = name
        drawn[", ".join(line)] = {place: by_place[place] for place in places if place in by_place}
    connected = bool(plot.lines) or all(_number(p) is not None for p in places)
    return Layout(tuple(places), drawn, connected, tuple(clashes))


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


def _on_every_line(plot: Plot, point: Point) -> bool:
    chosen = plot.on_every_line or {}
    return bool(chosen) and all(point.labels[axis] == label for axis, label in chosen.items())


def _line(plot: Plot, point: Point) -> tuple[str, ...]:
    return tuple(point.labels[axis] for axis in plot.lines)


def _agrees(plot: Plot, point: Point, line: tuple[str, ...]) -> bool:
    return all(
        axis in (plot.on_every_line or {}) or point.labels[axis] == label
        for axis, label in zip(plot.lines, line, strict=True)
    )


def clash_lines(layout: Layout) -> Iterator[str]:
    """Yield what is wrong with a study whose points would cover each other."""
    for first, second in layout.clashes:
        yield f"plot: {first} and {second} would stand at one place; name another axis in lines"
