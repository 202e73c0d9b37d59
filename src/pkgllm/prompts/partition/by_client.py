"""The partition ``by_client``: the data as people made them."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from pkgllm.prompts.partition.partition import Partition


@dataclass(frozen=True, slots=True, kw_only=True)
class ByClient(Partition):
    """Each client trains on its own groups, whole."""

    changes_groups: ClassVar[bool] = False

    name: Literal["by_client"] = "by_client"
