"""How every plot looks, and how it becomes PNG and SVG.

Colours are those of Okabe and Ito 2008, "Color Universal Design", which stay apart for every kind
of colour vision; lines differ in their dashes as well, for prints without colour.
"""

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from pkgllm.errors import RunError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FORMATS = ("png", "svg")

BLUE, ORANGE, _GREEN, _PINK, _BLACK = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000"
LOOKS: Any = (
    (BLUE, "-", 2.6),
    (ORANGE, (0, (5, 1.5)), 2.0),
    (_GREEN, (0, (1, 1)), 2.2),
    (_PINK, (0, (5, 1.5, 1, 1.5)), 2.0),
    (_BLACK, (0, (3, 3)), 1.6),
    ("#E69F00", (0, (8, 2, 2, 2)), 1.8),
    ("#56B4E9", (0, (2, 2)), 1.8),
)
"""Colour, dashes and width of each line, in this order."""
_SETTINGS: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 12,
    "axes.titlesize": 13,
    "axes.titlelocation": "left",
    "axes.titlepad": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.8,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "lines.linewidth": 2.2,
    "lines.markersize": 5,
    # Without it the names inside an SVG are drawn at random.
    "svg.hashsalt": "pkgllm",
}


def check_plots() -> None:
    """Raise where nothing can be drawn.

    Raises:
        RunError: If matplotlib is not installed.
    """
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise RunError(
            f"plots need matplotlib, which cannot be imported: {error}; install it with "
            "pip install matplotlib"
        ) from error


@contextmanager
def own_settings() -> Iterator[None]:
    """Keep what a user prefers elsewhere from changing the bytes."""
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_SETTINGS)
        yield


def new_figure(
    rows: int, columns: int, *, width: float = 7.2, height: float = 4.2, share_y: bool = True
) -> "tuple[Figure, Sequence[Axes]]":
    """Return a figure, inches wide and high, and its panels."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    shared = columns > 1 and share_y
    axes = figure.subplots(rows, columns, squeeze=False, sharey=shared, sharex=rows > 1)
    return figure, list(axes.flat)


def images(figure: "Figure") -> dict[str, bytes]:
    """Return a figure in every format."""
    made = {}
    for form in FORMATS:
        written = io.BytesIO()
        # Neither a date nor a version, which would differ in the same plot made again.
        nothing = {"Date": None, "Creator": None} if form == "svg" else {"Software": None}
        figure.savefig(written, format=form, dpi=160, metadata=nothing)
        made[form] = written.getvalue()
    return made
