"""Recommendations to people in a bubble: as a document, and as one plot."""

from collections.abc import Iterator, Mapping
from typing import Any

from pkgllm.report.document import Cell, Document, Table, columns, estimate
from pkgllm.report.drawing import LOOKS, images, new_figure, own_settings

_SHARE_HEADINGS = {"invalid": "invalid", "in_pie": "in-PIE", "out_pie": "out-PIE"}
_HEADINGS = {
    **_SHARE_HEADINGS,
    "precision": "precision@10",
    "recall": "recall@10",
    "rank_gain": "rank gain",
    "diversity": "diversity",
    "novelty": "novelty (bits)",
}


def pie_document(results: Mapping[str, Any]) -> Document:
    """Return each case's measures and paired differences; a terminal shows the measures."""
    title = f"Leaving a bubble: {results['title']}"
    return Document(title, tuple(_tables(results)), (*results["notes"], *_remarks(results)))


def _tables(results: Mapping[str, Any]) -> Iterator[Table]:
    for name, case in results["cases"].items():
        rows = tuple(
            (Cell(strategy), *(estimate(of[key], "value") for key in _HEADINGS))
            for strategy, of in case["strategies"].items()
        )
        title = f"{name}: {_counted(case)}"
        yield Table(title, columns("strategy", *_HEADINGS.values()), rows, compact=True)
        rows = tuple(
            (Cell(pair.replace("-", "\n- ")), *map(_difference, of.values()))
            for pair, of in case["paired"].items()
        )
        title = f"{name}: paired differences"
        yield Table(title, columns("difference", *_HEADINGS.values()), rows, place="page")


def _remarks(results: Mapping[str, Any]) -> Iterator[str]:
    yield (
        f"Lists of {results['k']}, the most probable of the whole catalogue without what the graph "
        "speaks of; public facts decide what is invalid (breaks the request) and, of the rest, "
        "what lies in the bubble (in-PIE) or not (out-PIE)."
    )
    yield (
        "Strategies: none asks with the person's own graph, prompt adds the wish to the request, "
        "adapt asks with the graph of a person who does not share the bubble."
    )
    yield (
        "Precision, recall and rank gain: over the people's later likes outside of the bubble, "
        "whether or not they meet the request; rank gain is by how many places such a like "
        "stands earlier than by popularity, over the number of candidates."
    )
    yield (
        "[low, high]: 95 % cluster bootstrap interval by client; * and **: p below .05 and .01 "
        "by paired permutation tests over clients, Holm-corrected within a case."
    )
    for name, case in results["cases"].items():
        out_pie = {s: of["out_pie"]["value"] for s, of in case["strategies"].items()}
        valid = {s: 1 - of["invalid"]["value"] for s, of in case["strategies"].items()}
        gain = f"{out_pie['adapt'] / out_pie['prompt']:.2f}" if out_pie["prompt"] else "n/a"
        kept = f"{valid['adapt'] / valid['prompt']:.2f}" if valid["prompt"] else "n/a"
        yield (
            f"{name}: adapt over prompt is {gain} in out-PIE share (aim: 2) and {kept} in valid "
            "share (aim: .9)."
        )


def _counted(case: Mapping[str, Any]) -> str:
    return (
        f"{case['people']} of {case['asked']} people are in a bubble, {case['with_held_out']} of "
        f"them later like something outside; request: {case['request']} ({case['allowed']} of "
        f"{case['catalogue']} items)"
    )


def _difference(of: Mapping[str, float | None]) -> Cell:
    cell = estimate(of, "difference")
    p_value = of["p_corrected"]
    assert p_value is not None
    mark = "**" if p_value < 0.01 else "*" if p_value < 0.05 else ""
    return Cell(f"{cell.text}{mark}", cell.value, cell.low, cell.high)


def draw_pie(results: Mapping[str, Any]) -> dict[str, bytes]:
    """Return the plot by format: stacked shares of invalid, in-PIE and out-PIE recommendations."""
    cases = results["cases"]
    with own_settings():
        figure, axes = new_figure(1, len(cases), width=3.6 * len(cases), height=4.4)
        for panel, (name, case) in zip(axes, cases.items(), strict=True):
            strategies = list(case["strategies"])
            below = [0.0] * len(strategies)
            # From the bottom what is wanted most.
            for (key, label), (colour, *_) in zip(
                reversed(_SHARE_HEADINGS.items()), LOOKS, strict=False
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
