"""A tiny decoder as a scorer of a catalogue of a few token sequences."""

from collections.abc import Mapping, Sequence
from typing import Any

from peft import PeftModel
from transformers import PreTrainedModel

from helpers.tiny_decoders import MAX_POSITIONS
from pkgllm.errors import ModelError, PkgllmError
from pkgllm.evaluation.ranking.language_model import LanguageModelScorer
from pkgllm.evaluation.ranking.memory import plan_memory
from pkgllm.evaluation.ranking.trie import CatalogueTrie
from pkgllm.evaluation.scorer import ClientQueries, RankedClient
from pkgllm.graph.personal_graph import PersonalGraph
from pkgllm.lm.decoder import Decoder

TERMINATOR = 0
Prompts = Mapping[str, Sequence[int]]


def asked(client: str) -> ClientQueries:
    return ClientQueries(client, True, PersonalGraph(client, ()), ("x",))


def trie_of(sequences: Sequence[Sequence[int]]) -> CatalogueTrie:
    return CatalogueTrie(sequences, names=[f"film {column}" for column in range(len(sequences))])


def scorer_of(
    model: PreTrainedModel | PeftModel, prompts: Prompts, trie: CatalogueTrie, **settings: Any
) -> LanguageModelScorer:
    return LanguageModelScorer(
        "base",
        model,
        lambda graph: prompts[graph.owner],
        trie,
        max_positions=MAX_POSITIONS,
        **settings,
    )


def least_budget(model: PreTrainedModel, trie: CatalogueTrie) -> int:
    """Return a budget that is enough, while half of it is too small."""
    budget = 1024
    while True:
        try:
            plan_memory(
                Decoder(model),
                trie,
                longest_prompt=MAX_POSITIONS - trie.longest_input,
                budget=budget,
            )
        except ModelError:
            budget *= 2
        else:
            return budget


def everyone(prompts: Prompts) -> list[ClientQueries]:
    return [asked(client) for client in prompts]


def sound(found: RankedClient | PkgllmError) -> RankedClient:
    assert isinstance(found, RankedClient)
    return found
