"""What local training minimises: one file for each objective, found by its name."""

from typing import TYPE_CHECKING

from pkgllm.registry import Registry

if TYPE_CHECKING:
    from pkgllm.objectives.objective import Objective

OBJECTIVES: "Registry[Objective]" = Registry(
    "objective",
    "pkgllm.objectives",
    {
        "kto": "pkgllm.objectives.kto:Kto",
        "apo_zero": "pkgllm.objectives.apo_zero:ApoZero",
        "dpo": "pkgllm.objectives.dpo:Dpo",
        "sdpo": "pkgllm.objectives.sdpo:Sdpo",
        "sft": "pkgllm.objectives.sft:Sft",
        "orpo": "pkgllm.objectives.orpo:Orpo",
        "simpo": "pkgllm.objectives.simpo:Simpo",
    },
)
