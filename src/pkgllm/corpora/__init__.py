"""Corpora: whose facts are used."""

from typing import TYPE_CHECKING

from pkgllm.registry import Registry

if TYPE_CHECKING:
    from pkgllm.corpora.reader import CorpusReader

CORPORA: "Registry[CorpusReader]" = Registry(
    "corpus",
    "pkgllm.corpora",
    {
        "redial": "pkgllm.corpora.redial:RedialCorpus",
        "small_world": "pkgllm.corpora.small_world:SmallWorldCorpus",
    },
)
