"""Privacy units: whose taking part a run hides, and by what noise."""

from typing import TYPE_CHECKING

from pkgllm.registry import Registry

if TYPE_CHECKING:
    from pkgllm.privacy.unit import PrivacyUnit

PRIVACY_UNITS: "Registry[PrivacyUnit]" = Registry(
    "privacy unit",
    "pkgllm.privacy_units",
    {
        "none": "pkgllm.privacy.units.none:NoPrivacy",
        "example": "pkgllm.privacy.units.example:ExamplePrivacy",
        "client": "pkgllm.privacy.units.client:ClientPrivacy",
    },
)
