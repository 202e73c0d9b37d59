"""What lists consist of under each strategy, in one plot, a panel for each case."""

from collections.abc import Mapping
from typing import Any

from pkgllm.report.drawing import LOOKS, images, new_figure, own_settings
from pkgllm.report.pie import SHARE_HEADINGS


def draw_pie(results: Mapping[str, Any]) -> dict[str, bytes]:
    """Return the plot by format: stacked shares of invalid, in-PIE and out-PIE recommendations.

    Args:
        results: As made by ``pie_results``.
    """
    cases = results["cases"]
    with own_settings():
        figure, axes = new_figure(1, len(cases), width=3.6 * len(cases), height=4.4)
        for panel, (name, case) in zip(axes, cases.items(), strict=True):
            strategies = list(case["strategies"])
            below = [0.0] * len(strategies)
            # From the bottom what is wanted most.
            for (key, label), (colour, *_) in zip(
                reversed(SHARE_HEADINGS.items()), LOOKS, strict=False
            ):
                shares = [case["strategies"][strategy][key]["value"] for strategy in strategies]
                panel.bar(strategies, shares, bottom=below, color=colour, label=label)
                below = [low + share for low, share in zip(below, shares, strict=True)]
            panel.set_title(name)
            panel.set_ylim(0, 1)
            panel.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
        axes[0].set_ylabel("share of the recommendations")
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
        return images(figure)
