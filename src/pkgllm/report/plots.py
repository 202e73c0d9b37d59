"""One run in plots, each as PNG and SVG; the same numbers give the same bytes of SVG."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pkgllm.report.drawing import BLUE, LOOKS, ORANGE, images, new_figure, own_settings
from pkgllm.report.run_report import RunSummary, measure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PLOTS = ("training", "epochs", "updates", "validation", "clients")
"""Every file name, without its ending."""

_HEADINGS = {"hits@10": "Hits@10", "mrr": "MRR"}


def draw_plots(run: RunSummary) -> dict[str, dict[str, bytes]]:
    """Return every plot that a run has numbers for, by file name and format."""
    with own_settings():
        return {name: images(draw(run)) for name, draw in _drawings(run).items()}


def captions(run: RunSummary) -> dict[str, str]:
    """Return what each plot of a run shows, by file name."""
    drawn = {
        "training": "Loss by round" if _reports_loss(run) else "Length of each round's step",
        "epochs": "Loss by epoch of each stage",
        "updates": "Length and direction of the clients' updates by round",
        "validation": "Hits@10 on the validation part by round",
        "clients": "Spread over clients of Hits@10 and MRR in the final evaluation",
    }
    return {name: drawn[name] for name in _drawings(run)}


def _drawings(run: RunSummary) -> dict[str, "Callable[[RunSummary], Figure]"]:
    has = {
        "training": (_training, any(r.get("update_norm") is not None for r in run.rounds)),
        "epochs": (_epochs, bool(run.epochs)),
        "updates": (_updates, bool(_series(run.rounds, "update_norms", "mean")[0])),
        "validation": (_validation, bool(run.validations)),
        "clients": (_clients, bool(run.own)),
    }
    return {name: draw for name, (draw, wanted) in has.items() if wanted}


def _training(run: RunSummary) -> "Figure":
    figure, axes = new_figure(1, 1)
    name = "loss" if _reports_loss(run) else "update_norm"
    _line(axes[0], *_series(run.rounds, name))
    axes[0].set_title(captions(run)["training"])
    axes[0].set_ylabel("loss, mean over the cohort" if name == "loss" else "Euclidean length")
    if run.mode == "centralized" and name == "loss":
        axes[0].set_ylabel("loss")
    _rounds_axis(axes[0], run)
    return figure


def _epochs(run: RunSummary) -> "Figure":
    stages = len(run.epochs)
    width = 7.2 if stages == 1 else 4.2 * stages
    # Neither epochs nor losses of different stages are on one scale.
    figure, axes = new_figure(1, stages, width=width, share_y=False)
    for panel, (stage, records) in zip(axes, run.epochs.items(), strict=True):
        _line(panel, [r["epoch"] for r in records], [r["loss"] for r in records])
        panel.set_title(stage)
        panel.set_xlabel("epoch")
    axes[0].set_ylabel("loss")
    return figure


def _updates(run: RunSummary) -> "Figure":
    figure, axes = new_figure(2, 1, height=6.4)
    for panel, name, title, label in (
        (axes[0], "update_norms", "Length of the clients' updates", "Euclidean length"),
        (axes[1], "update_cosines", "Direction: cosine to the mean update", "cosine"),
    ):
        places, mean = _series(run.rounds, name, "mean")
        (_, low), (_, high) = (_series(run.rounds, name, part) for part in ("min", "max"))
        panel.fill_between(
            places, low, high, color=BLUE, alpha=0.18, linewidth=0, label="smallest to largest"
        )
        _line(panel, places, mean, label="mean of the cohort")
        panel.set_title(title)
        panel.set_ylabel(label)
        _rounds_axis(panel, run)
    axes[0].set_xlabel("")
    axes[0].set_ylim(bottom=0)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles[::-1], labels[::-1], loc="outside lower center", ncols=2)
    return figure


def _validation(run: RunSummary) -> "Figure":
    figure, axes = new_figure(1, 1)
    places, values = _series(run.validations, "hits@10")
    _line(axes[0], places, values)
    axes[0].set_title(captions(run)["validation"])
    axes[0].set_ylabel("Hits@10")
    _rounds_axis(axes[0], run)
    best = max(range(len(values)), key=values.__getitem__)
    axes[0].plot(
        places[best], values[best], "o", color=ORANGE, markersize=9, zorder=3, clip_on=False
    )
    axes[0].annotate(
        f"best {values[best]:.4f}, round {places[best]:.0f}",
        (places[best], values[best]),
        xytext=(0, 12),
        textcoords="offset points",
        ha="right" if places[best] > run.planned / 2 else "left",
        color=ORANGE,
    )
    axes[0].margins(y=0.2)
    # From 0, or the noise of a few queries would look like a rise.
    axes[0].set_ylim(bottom=0)
    return figure


def _clients(run: RunSummary) -> "Figure":
    figure, axes = new_figure(1, len(run.own), width=9.6, height=4.9)
    # Room between the last number of one axis and the first of the next.
    figure.get_layout_engine().set(wspace=0.06)  # type: ignore[union-attr, call-arg]
    for panel, (metric, models) in zip(axes, run.own.items(), strict=True):
        for place, (model, values) in enumerate(models.items()):
            colour, dashes, width = LOOKS[place % len(LOOKS)]
            panel.step(
                *_at_least(values),
                where="pre",
                label=model,
                color=colour,
                linestyle=dashes,
                linewidth=width,
                # The first model is what the run is about.
                zorder=3 if place == 0 else 2,
            )
        panel.set_title(_HEADINGS[metric])
        panel.set_xlabel(f"a client's own {_HEADINGS[metric]} is at least")
        panel.set_ylim(0, 1.02)
        panel.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
        if metric == "mrr":
            panel.set_xscale("log")
            panel.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        else:
            panel.set_xlim(-0.02, 1.02)
    axes[0].set_ylabel("share of the clients")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 5))
    return figure


def _at_least(values: Sequence[float]) -> tuple[list[float], list[float]]:
    """Return the corners of the share of clients whose own value is at least something.

    Example:
        >>> _at_least([0.5, 1.0, 0.5, 0.0])
        ([0.0, 0.5, 1.0, 1.0], [1.0, 0.75, 0.25, 0.0])
    """
    places = sorted(set(values))
    shares = [sum(value >= place for value in values) / len(values) for place in places]
    return [*places, places[-1]], [*shares, 0.0]


def _reports_loss(run: RunSummary) -> bool:
    return bool(_series(run.rounds, "loss")[0])


def _series(
    records: Sequence[Mapping[str, Any]], name: str, part: str | None = None
) -> tuple[list[float], list[float]]:
    read = measure(name, part)
    pairs = [(r["round_num"], value) for r in records if (value := read(r)) is not None]
    return [place for place, _ in pairs], [value for _, value in pairs]


def _line(axes: "Axes", places: list[float], values: list[float], label: str = "") -> None:
    # With many rounds, marks would run into each other.
    mark = "o" if len(places) <= 40 else None
    axes.plot(places, values, color=BLUE, marker=mark, label=label, zorder=3)


def _rounds_axis(axes: "Axes", run: RunSummary) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_xlabel("round")
    axes.set_xlim(0.5, run.planned + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
