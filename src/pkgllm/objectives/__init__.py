"""What local training minimises. A choice is one file here and one line below."""

from pkgllm.objectives.objective import Objective
from pkgllm.registry import Registry

OBJECTIVES: Registry[Objective] = Registry("objective", "pkgllm.objectives", {})
