from typing import Any

from helpers.printed import printed
from pkgllm.report.study import study_document
from pkgllm.report.to_markdown import markdown


def measured(mean: float, *, sd: float | None = None) -> dict[str, Any]:
    low, high = (mean / 2, mean * 2) if sd is None else (None, None)
    return {"mrr": {"mean": mean, "sd": sd, "low": low, "high": high, "values": [mean]}}


def summary(**changes: Any) -> dict[str, Any]:
    """Two points with a seed each; the second one failed."""
    return {
        "study": "small",
        "base": "quickstart.yaml",
        "seeds": [0],
        "metrics": ["mrr"],
        "models": ["tuned", "base"],
        "runs": [
            {"name": "a-seed0", "point": "a", "state": "finished", "reason": None},
            {"name": "b-seed0", "point": "b", "state": "failed", "reason": "no | such\nfile"},
        ],
        "points": [
            {
                "name": "a",
                "seeds": [0],
                "seconds": 12.4,
                "privacy": {
                    "unit": "client",
                    "epsilon": 7.98765,
                    "delta": 1e-05,
                    "relation": "add or remove one",
                    "accountant": "prv",
                },
                "models": {"tuned": measured(0.25)},
            },
            {"name": "b", "seeds": [], "seconds": None, "privacy": None, "models": {}},
        ],
        "shared": {"base": measured(0.125)},
        "differences": None,
        "notes": ["A note."],
        **changes,
    }


def test_every_row_of_results_states_its_privacy() -> None:
    text = markdown(study_document(summary(), "plot.png"))
    assert text.splitlines()[0] == "## Study small: 1 of 2 runs finished"
    head = (
        "| point | MRR | privacy unit | epsilon | delta | relation | accountant | runs | seconds |"
    )
    assert head in text
    assert (
        "| a | .2500 [.1250, .5000] | client | 7.988 | 1e-05 | add or remove one | prv | 1 | 12 |"
    ) in text
    assert "| b | failed | - | - | - | - | - | 0 of 1 | - |" in text
    assert "| base | .1250 [.0625, .2500] |  |  |  |  |  |  |  |" in text
    # A bar would end the cell.
    assert "| b-seed0 | no \\| such file |" in text
    assert "- A note." in text
    assert text.endswith(
        "![small](plot.png)\n\nBars: one SD over seeds to both sides, or the 95 % interval of a "
        "single run.\n"
    )
    assert "![" not in markdown(study_document(summary()))


def test_of_local_noise_both_epsilons_are_stated() -> None:
    (first, _) = summary()["points"]
    point = {**first, "privacy": {**first["privacy"], "share_epsilon": 21.5}}
    study = summary(points=[point])
    assert "| client | 7.988 / 21.5 | 1e-05 |" in markdown(study_document(study))
    assert any("after the stroke, for the server" in note for note in study_document(study).notes)
    assert not any("stroke" in note for note in study_document(summary()).notes)


def test_over_seeds_there_is_an_sd_and_no_interval() -> None:
    (first, _) = summary()["points"]
    point = {**first, "seeds": [0, 1], "models": {"tuned": measured(0.25, sd=0.01)}}
    study = summary(seeds=[0, 1], points=[point], shared={})
    text = markdown(study_document(study))
    assert "| point | MRR | MRR SD | privacy unit |" in text
    assert "| a | .2500 | .0100 | client |" in text
    largest = "Privacy: the largest epsilon and delta of a point's runs."
    assert largest in study_document(study).notes


def test_differences_name_model_and_reference() -> None:
    tested = {"difference": 0.1, "low": -0.05, "high": 0.2, "p": 0.03125, "p_holm": 0.0625}
    differences = {
        "reference": "b",
        "model": "tuned",
        "points": [{"name": "a", "seeds": [0], "clients": 9, "metrics": {"mrr": tested}}],
    }
    text = markdown(study_document(summary(differences=differences)))
    assert "**MRR of tuned: difference from b**" in text
    assert "| a | +.1000 [-.0500, .2000] | .0312 | .0625 | 1 |" in text


def test_it_fits_a_terminal() -> None:
    text = printed(study_document(summary()), 100)
    assert max(map(len, text.splitlines())) <= 100
    for piece in ("Every point", "Privacy and cost", "Failed runs", "add or remove one", "7.988"):
        assert piece in text
