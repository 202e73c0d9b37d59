"""Which client trains on which of the examples that the groups hold."""

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from pkgllm.config.mode_sections import Mode
from pkgllm.config.section import Section
from pkgllm.objectives.objective import Objective


class ByClient(Section):
    """Each client trains on its own groups, whole."""

    name: Literal["by_client"]


class Redistributed(Section):
    """Single examples, dealt at random in equal numbers; moves them between people.

    Only in a simulation, and never private.
    """

    name: Literal["redistributed"]


class Paired(Section):
    """Each client keeps of its own groups what matched pairs of DPO use."""

    name: Literal["paired"]


class Dirichlet(Section):
    """Each client keeps its own share of undesirable examples.

    It is drawn from a Dirichlet distribution round the share of all clients together.
    """

    name: Literal["dirichlet"]
    concentration: Annotated[float, Field(ge=1e-3, le=1e6)] = 1.0
    """How close the shares lie: large for alike clients, small for clients with one label each."""


class OneSided(Section):
    """Some clients keep their desirable examples only, and as many their undesirable ones only."""

    name: Literal["one_sided"]
    one_sided_share: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of the clients that are left with one label; the others keep all."""


Layout = Annotated[
    ByClient | Redistributed | Paired | Dirichlet | OneSided, Field(discriminator="name")
]


def layout_problems(layout: Layout, objective: Objective, mode: Mode) -> Iterator[str]:
    """Yield what a layout cannot be combined with, and what to use instead."""
    if layout.name in ("redistributed", "one_sided") and objective.needs_pairs:
        left = (
            "every group holds a single example"
            if layout.name == "redistributed"
            else "clients are left with one label"
        )
        yield (
            f"layout {layout.name} needs an objective without pairs, because {left}, and "
            f"{objective.name} compares two labels in a group; use objective kto or apo_zero"
        )
    if layout.name == "one_sided" and objective.needs_desirable and not objective.needs_pairs:
        yield (
            "layout one_sided needs an objective that learns from undesirable examples too, "
            "because some clients are left with no others; use objective kto or apo_zero, not "
            f"{objective.name}"
        )
    if layout.name == "redistributed" and mode.name == "local":
        yield (
            "layout redistributed needs clients that train together, because alone each would tune "
            "its own adapter on other people's examples; use mode federated or centralized, or "
            "layout by_client"
        )
