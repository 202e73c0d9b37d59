"""The models that an evaluation compares: tuned and base language models, simple baselines."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from peft import PeftModel

from pkgllm.config import schema
from pkgllm.corpora.population import Population
from pkgllm.evaluation.per_client import PerClientScorer
from pkgllm.evaluation.ranking.adjusted_scores import adjusted
from pkgllm.evaluation.ranking.branches import SlotMemory
from pkgllm.evaluation.ranking.language_model import GIBIBYTE, LanguageModelScorer
from pkgllm.evaluation.ranking.trie import make_trie
from pkgllm.evaluation.scorer import Scorer
from pkgllm.lm.adapter import adapter_state, load_adapter_state, read_adapter_state
from pkgllm.lm.base_model import BaseModel
from pkgllm.pipeline.modes import client_adapter
from pkgllm.prompts.prompts import PromptWriter


@dataclass(frozen=True, slots=True)
class Ranked:
    """The language models of a run, ready to be ranked."""

    run: Path
    """The folder that holds the adapters."""
    base: BaseModel
    policy: PeftModel
    writer: PromptWriter


def language_models(
    config: schema.Experiment, ranked: Ranked, population: Population
) -> tuple[Scorer, ...]:
    """Return the tuned model, and the base model that it was where it is asked for.

    Raises:
        ModelError: If the base model cannot be ranked, or memory does not suffice.
    """
    catalogue, writer = population.corpus.catalogue, ranked.writer
    trie = make_trie(writer, catalogue)
    memory = SlotMemory()

    def language_model(name: str, *, with_adapter: bool) -> LanguageModelScorer:
        return LanguageModelScorer(
            name,
            ranked.policy,
            lambda graph: writer.write(graph).token_ids,
            trie,
            max_positions=ranked.base.max_positions,
            longest_prompt=config.prompt.max_tokens,
            memory_budget=int(config.evaluation.memory_gib * GIBIBYTE),
            with_adapter=with_adapter,
            memory=memory,
        )

    tuned, base = adjusted(
        language_model("tuned", with_adapter=True),
        language_model("base", with_adapter=False),
        config.evaluation.score,
        num_tokens=trie.depths[trie.terminal_nodes] + 1,
    )
    if isinstance(config.mode, schema.Local):
        tuned = PerClientScorer(tuned, own_adapter(ranked, population))
    return (tuned, base) if config.evaluation.base_model else (tuned,)


def own_adapter(ranked: Ranked, population: Population) -> Callable[[str], None]:
    """Return what loads a client's own adapter, and a fresh one for a client that has none."""
    fresh = adapter_state(ranked.policy)
    # Another folder's clients may have the ids of those who trained.
    trained = {split.client for split in population.in_training}

    def select(client: str) -> None:
        folder = client_adapter(ranked.run, client)
        own = client in trained and folder.is_dir()
        load_adapter_state(ranked.policy, read_adapter_state(folder) if own else fresh)

    return select
