from typing import Any

import pytest
from pydantic import ValidationError

from pkgllm.config.schema import Dirichlet, Experiment, OneSided

MODES = ("federated", "centralized", "local")
OBJECTIVES = ("kto", "apo_zero", "dpo", "sdpo", "sft")
LAYOUTS = ("by_client", "redistributed", "paired", "dirichlet", "one_sided")


def tree(layout: str, objective: str = "kto", mode: str = "federated") -> dict[str, Any]:
    cohort = {"cohort_size": 2} if mode == "federated" else {}
    return {
        "corpus": {"name": "small_world"},
        "base_model": {"name": "base-tiny"},
        "layout": {"name": layout},
        "objective": {"name": objective},
        "mode": {"name": mode, "rounds": 2, **cohort},
    }


def refusals(layout: str, objective: str, mode: str) -> str:
    try:
        Experiment.model_validate(tree(layout, objective, mode), strict=True)
    except ValidationError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_makes_no_sense_together_is_refused(layout: str, objective: str, mode: str) -> None:
    said = refusals(layout, objective, mode)
    pairs = objective in ("dpo", "sdpo") and layout in ("redistributed", "one_sided")
    nothing_to_like = (layout, objective) == ("one_sided", "sft")
    alone = (layout, mode) == ("redistributed", "local")
    assert ("needs an objective without pairs" in said) == pairs
    assert ("needs an objective that learns from undesirable examples" in said) == nothing_to_like
    assert ("needs clients that train together" in said) == alone
    assert bool(said) == (pairs or nothing_to_like or alone)


def test_everything_that_is_wrong_is_told_at_once() -> None:
    said = refusals("redistributed", "sdpo", "local")
    assert "every group holds a single example, and sdpo compares two labels in a group" in said
    assert "use mode federated or centralized, or layout by_client" in said


def test_defaults() -> None:
    without = tree("by_client")
    del without["layout"]
    assert Experiment.model_validate(without).layout.name == "by_client"
    assert Dirichlet(name="dirichlet").concentration == 1.0
    assert OneSided(name="one_sided").one_sided_share == 1.0


@pytest.mark.parametrize("share", [0.0, -0.5, 1.01, float("nan")])
def test_a_share_must_be_one(share: float) -> None:
    with pytest.raises(ValidationError):
        OneSided(name="one_sided", one_sided_share=share)


@pytest.mark.parametrize("concentration", [0.0, 9e-4, 1.1e6, float("inf"), float("nan")])
def test_a_concentration_must_be_one_that_can_be_drawn_with(concentration: float) -> None:
    with pytest.raises(ValidationError):
        Dirichlet(name="dirichlet", concentration=concentration)
