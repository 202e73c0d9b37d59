"""Partitions: which client holds which of the examples that the groups hold."""

from typing import TYPE_CHECKING

from pkgllm.registry import Registry

if TYPE_CHECKING:
    from pkgllm.prompts.partition.partition import Partition

PARTITIONS: "Registry[Partition]" = Registry(
    "partition",
    "pkgllm.partitions",
    {
        "by_client": "pkgllm.prompts.partition.by_client:ByClient",
        "redistributed": "pkgllm.prompts.partition.redistributed:Redistributed",
        "paired": "pkgllm.prompts.partition.paired:Paired",
        "dirichlet": "pkgllm.prompts.partition.dirichlet:Dirichlet",
        "one_sided": "pkgllm.prompts.partition.one_sided:OneSided",
    },
)
