import io
from typing import Any
from xml.etree import ElementTree

import matplotlib
import pytest
from PIL import Image

from pkgllm.report.drawing import FORMATS, new_figure, own_settings
from pkgllm.report.study_plots import StudyLines, _draw_panel, draw_study


def of_one(mean: float, low: float, high: float) -> dict[str, Any]:
    return {"mean": mean, "sd": None, "low": low, "high": high}


def of_several(mean: float, sd: float) -> dict[str, Any]:
    return {"mean": mean, "sd": sd, "low": None, "high": None}


def lines(**changes: Any) -> StudyLines:
    measured = {
        "kto, client": {"1": of_several(0.1, 0.02), "inf": of_several(0.3, 0.05)},
        "dpo, client": {"1": of_one(0.2, 0.05, 0.6), "3": of_one(0.25, 0.1, 0.4)},
    }
    given: dict[str, Any] = {
        "x": "epsilon",
        "places": ("1", "3", "inf"),
        "connected": True,
        "metrics": {"hits@10": measured, "mrr": measured},
        **changes,
    }
    return StudyLines(**given)


@pytest.mark.slow
def test_it_is_an_image_in_both_formats() -> None:
    forms = draw_study(lines())
    assert set(forms) == set(FORMATS)
    with Image.open(io.BytesIO(forms["png"])) as image:
        image.verify()
    assert min(image.size) >= 600
    assert ElementTree.fromstring(forms["svg"]).tag == "{http://www.w3.org/2000/svg}svg"
    assert b"<dc:date>" not in forms["svg"]


@pytest.mark.slow
def test_the_same_numbers_give_the_same_bytes_whatever_a_user_prefers() -> None:
    first = draw_study(lines())
    with matplotlib.rc_context({"lines.linewidth": 9.0, "svg.hashsalt": "mine", "font.size": 30}):
        assert draw_study(lines()) == first
    assert draw_study(lines(connected=False)) != first
    assert draw_study(lines(x="noise")) != first


@pytest.mark.parametrize("connected", [True, False])
def test_values_and_bars_stand_where_the_numbers_say(connected: bool) -> None:
    with own_settings():
        _, (panel,) = new_figure(1, 1)
        _draw_panel(panel, lines(connected=connected), "mrr")
    kto, dpo = panel.containers
    assert [kto.get_label(), dpo.get_label()] == ["kto, client", "dpo, client"]
    for container, expected in (
        (kto, [(0, 0.1, 0.08, 0.12), (2, 0.3, 0.25, 0.35)]),
        (dpo, [(0, 0.2, 0.05, 0.6), (1, 0.25, 0.1, 0.4)]),
    ):
        drawn, _, (bars,) = container
        assert drawn.get_linestyle() == "None" if not connected else drawn.get_linestyle() != "None"
        for (x, y), segment, (place, mean, low, high) in zip(
            drawn.get_xydata(), bars.get_segments(), expected, strict=True
        ):
            assert round(x) == place
            assert y == pytest.approx(mean)
            assert segment[:, 1].tolist() == pytest.approx([low, high])
    # Lines stand beside each other, not on each other.
    assert kto[0].get_xdata()[0] < dpo[0].get_xdata()[0]
    assert [text.get_text() for text in panel.get_xticklabels()] == ["1", "3", "inf"]
    assert panel.get_ylim()[0] == 0
