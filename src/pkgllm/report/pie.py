"""Recommendations to people in a bubble, as tables."""

from collections.abc import Iterator, Mapping
from typing import Any

from pkgllm.report.blocks import Block, Cell, estimate
from pkgllm.report.tables import markdown_section

SHARE_HEADINGS = {"invalid": "invalid", "in_pie": "in-PIE", "out_pie": "out-PIE"}
_HEADINGS = {
    **SHARE_HEADINGS,
    "precision": "precision@10",
    "recall": "recall@10",
    "rank_gain": "rank gain",
    "diversity": "diversity",
    "novelty": "novelty (bits)",
}


def markdown_pie(results: Mapping[str, Any]) -> str:
    """Return everything that was found as one Markdown section.

    Args:
        results: As made by ``pie_results``.
    """
    return markdown_section(pie_title(results), pie_blocks(results), tuple(pie_remarks(results)))


def pie_title(results: Mapping[str, Any]) -> str:
    """Return the heading."""
    return f"Leaving a bubble: {results['title']}"


def pie_blocks(results: Mapping[str, Any]) -> Iterator[Block]:
    """Yield for each case its measures and its paired differences."""
    for name, measures in zip(results["cases"], measure_blocks(results), strict=True):
        yield measures
        rows = tuple(
            (tuple(pair.replace("-", "\n- ").split("\n")), tuple(map(_difference, of.values())))
            for pair, of in results["cases"][name]["paired"].items()
        )
        yield Block(f"{name}: paired differences", ("difference", *_HEADINGS.values()), rows)


def measure_blocks(results: Mapping[str, Any]) -> Iterator[Block]:
    """Yield for each case its measures."""
    for name, case in results["cases"].items():
        rows = tuple(
            ((strategy,), tuple(estimate(of[key], "value") for key in _HEADINGS))
            for strategy, of in case["strategies"].items()
        )
        yield Block(f"{name}: {_counted(case)}", ("strategy", *_HEADINGS.values()), rows)


def pie_remarks(results: Mapping[str, Any]) -> Iterator[str]:
    """Yield what a reader must know beside the numbers."""
    yield from results["notes"]
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


def _difference(found: Mapping[str, float | None]) -> Cell:
    cell = estimate(found, "difference")
    p_value = found["p_corrected"]
    assert p_value is not None
    mark = "**" if p_value < 0.01 else "*" if p_value < 0.05 else ""
    # A star alone would begin emphasis in Markdown.
    return Cell(cell.value + mark.replace("*", r"\*"), cell.low, cell.high)
