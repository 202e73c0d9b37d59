"""The privacy unit ``none``: updates leave the clients as they are."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

from pkgllm.privacy.unit import PrivacyUnit
from pkgllm.registry import RunSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class NoPrivacy(PrivacyUnit):
    """No guarantee: updates leave the clients as they are."""

    adds_noise: ClassVar[bool] = False

    name: Literal["none"] = "none"

    def problems(self, run: RunSettings) -> Iterator[str]:
        """Yield what sends private counts in a run that is not marked."""
        weighting = getattr(run.mode, "weighting", "uniform")
        if weighting == "examples" and not self.report_private_metrics:
            yield (
                "mode.weighting examples sends private counts; set privacy.report_private_metrics "
                "to mark the run as not private, or use uniform"
            )
