"""A study in one plot, a panel for each metric, as PNG and SVG."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pkgllm.report.drawing import LOOKS, images, new_figure, own_settings
from pkgllm.report.ranking import METRIC_HEADINGS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MARKS = "osD^vPX"
_SPREAD = 0.06
"""Distance between lines at one place, so that their intervals do not cover each other."""


@dataclass(frozen=True, slots=True)
class StudyLines:
    """What is drawn."""

    x: str
    """What the places differ in."""
    places: tuple[str, ...]
    """From left to right, at equal distances."""
    connected: bool
    """Whether the points of a line are joined."""
    metrics: Mapping[str, Mapping[str, Mapping[str, Mapping[str, Any]]]]
    """By metric, line and place: ``mean``, and ``sd`` of several runs or ``low`` and ``high`` of
    one."""


def draw_study(lines: StudyLines) -> dict[str, bytes]:
    """Return the plot of a study by format.

    Bars are one standard deviation over seeds to both sides, or the 95 % interval of a single run.
    """
    with own_settings():
        wide = 4.8 * len(lines.metrics)
        figure, axes = new_figure(1, len(lines.metrics), width=wide, height=4.6, share_y=False)
        for panel, metric in zip(axes, lines.metrics, strict=True):
            _draw_panel(panel, lines, metric)
        handles, labels = axes[0].get_legend_handles_labels()
        if len(labels) > 1:
            figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 4))
        return images(figure)


def interval(measured: Mapping[str, Any]) -> tuple[float, float]:
    """Return both ends of a bar.

    Example:
        >>> interval({"mean": 0.5, "sd": 0.25, "low": None, "high": None})
        (0.25, 0.75)
        >>> interval({"mean": 0.5, "sd": None, "low": 0.375, "high": 0.75})
        (0.375, 0.75)
    """
    mean, sd = measured["mean"], measured["sd"] or 0.0
    low, high = measured["low"], measured["high"]
    return (mean - sd, mean + sd) if low is None or high is None else (low, high)


def _draw_panel(panel: "Axes", lines: StudyLines, metric: str) -> None:
    drawn = lines.metrics[metric]
    for number, (line, by_place) in enumerate(drawn.items()):
        colour, dashes, width = LOOKS[number % len(LOOKS)]
        aside = _SPREAD * (number - (len(drawn) - 1) / 2)
        xs = [lines.places.index(place) + aside for place in by_place]
        means = [measured["mean"] for measured in by_place.values()]
        ends = [interval(measured) for measured in by_place.values()]
        panel.errorbar(
            xs,
            means,
            yerr=[
                [max(mean - low, 0.0) for mean, (low, _) in zip(means, ends, strict=True)],
                [max(high - mean, 0.0) for mean, (_, high) in zip(means, ends, strict=True)],
            ],
            label=line,
            color=colour,
            linestyle=dashes if lines.connected else "none",
            linewidth=width,
            marker=_MARKS[number % len(_MARKS)],
            elinewidth=1.2,
            capsize=3,
        )
    panel.set_title(METRIC_HEADINGS[metric])
    panel.set_xlabel(lines.x)
    crowded = sum(map(len, lines.places)) > 36
    panel.set_xticks(
        range(len(lines.places)),
        lines.places,
        rotation=40 if crowded else 0,
        ha="right" if crowded else "center",
    )
    panel.set_xlim(-0.5, len(lines.places) - 0.5)
    # From 0, or the noise of a few queries would look like a rise.
    panel.set_ylim(bottom=min(0.0, panel.get_ylim()[0]) if metric == "adjusted_mrr" else 0.0)
