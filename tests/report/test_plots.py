import builtins
import io
import sys
from collections.abc import Callable
from typing import Any
from xml.etree import ElementTree

import matplotlib
import pytest
from PIL import Image

from helpers.run_summaries import round_record, summary
from pkgllm.errors import RunError
from pkgllm.report.drawing import FORMATS, check_plots
from pkgllm.report.plots import PLOTS, captions, draw_plots

NO_COSINES = dict.fromkeys(("mean", "min", "max", "sd"))
EPOCHS = {
    stage: tuple({"epoch": n, "loss": 1 / n, "seconds": 0.5} for n in range(1, last + 1))
    for stage, last in (("transe", 3), ("decoder", 9))
}


@pytest.mark.slow
def test_every_plot_is_an_image_in_both_formats() -> None:
    whole = summary(epochs=EPOCHS)
    made = draw_plots(whole)
    assert set(made) == set(PLOTS) == set(captions(whole))
    for forms in made.values():
        assert set(forms) == set(FORMATS)
        with Image.open(io.BytesIO(forms["png"])) as image:
            image.verify()
        assert min(image.size) >= 600
        root = ElementTree.fromstring(forms["svg"])
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        assert b"<dc:date>" not in forms["svg"]


@pytest.mark.slow
def test_the_same_numbers_give_the_same_bytes_whatever_a_user_prefers() -> None:
    first = draw_plots(summary())
    with matplotlib.rc_context({"lines.linewidth": 9.0, "svg.hashsalt": "mine", "font.size": 30}):
        assert draw_plots(summary()) == first
        assert matplotlib.rcParams["font.size"] == 30
    assert draw_plots(summary(planned=9)) != first


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"rounds": (), "validations": (), "own": {}}, ()),
        ({"validations": ()}, ("training", "updates", "clients")),
        ({"own": {}}, ("training", "updates", "validation")),
        # Centralised: there are no clients whose updates could differ.
        (
            {"rounds": ({"round_num": 1, "loss": 0.5, "update_norm": 1.0},), "own": {}},
            ("training", "validation"),
        ),
        # Nobody moved, so nobody has a cosine.
        (
            {
                "rounds": (round_record(1, update_cosines=NO_COSINES),),
                "validations": (),
                "own": {},
            },
            ("training", "updates"),
        ),
        (
            {"own": {"hits@10": {"tuned": [0.5]}, "mrr": {"tuned": [0.25]}}},
            ("training", "updates", "validation", "clients"),
        ),
        # An embedding has stages and no rounds.
        ({"rounds": (), "validations": (), "own": {}, "epochs": EPOCHS}, ("epochs",)),
    ],
)
def test_what_a_run_does_not_tell_is_not_drawn(
    changes: dict[str, Any], expected: tuple[str, ...]
) -> None:
    assert set(draw_plots(summary(**changes))) == set(expected)


@pytest.mark.slow
def test_without_a_loss_the_length_of_the_step_is_drawn() -> None:
    private = summary(rounds=tuple(round_record(n) for n in range(1, 5)))
    assert captions(private)["training"] == "Length of each round's step"
    assert captions(summary())["training"] == "Loss by round"
    assert draw_plots(private)["training"] != draw_plots(summary())["training"]


def test_without_matplotlib_it_is_said_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    check_plots()
    real: Callable[..., Any] = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.startswith("matplotlib"):
            raise ModuleNotFoundError("No module named 'matplotlib'")
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(RunError) as caught:
        check_plots()
    assert str(caught.value) == (
        "plots need matplotlib, which cannot be imported: No module named 'matplotlib'; install "
        "it with pip install matplotlib"
    )
    assert "matplotlib" in sys.modules
