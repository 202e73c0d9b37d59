"""The models that an evaluation compares: tuned and base language models, simple baselines."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from peft import PeftModel

from pkgllm.baselines.controls import ConstantScorer, PromptCopy, RandomScorer
from pkgllm.baselines.ease import Ease
from pkgllm.baselines.genre_popularity import GenrePopularity
from pkgllm.baselines.item_knn import ItemKnn
from pkgllm.baselines.likes import TrainingLikes
from pkgllm.baselines.popularity import Popularity
from pkgllm.config import schema
from pkgllm.corpora.catalogue import Catalogue
from pkgllm.corpora.population import Population
from pkgllm.evaluation.adjusted_scores import MeanScorer, PmiScorer, RatioScorer
from pkgllm.evaluation.per_client import PerClientScorer
from pkgllm.evaluation.ranking.branches import SlotMemory
from pkgllm.evaluation.ranking.language_model import GIBIBYTE, LanguageModelScorer
from pkgllm.evaluation.ranking.trie import CatalogueTrie
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


def make_trie(writer: PromptWriter, catalogue: Catalogue) -> CatalogueTrie:
    """Return the catalogue as a model reads it."""
    sequences = [writer.completion_ids(name) for name in catalogue.names]
    return CatalogueTrie(sequences, names=catalogue.names)


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

    policy = language_model("tuned", with_adapter=True)
    reference = language_model("base", with_adapter=False)
    if config.evaluation.score == "policy_reference_ratio":
        tuned: Scorer = RatioScorer(policy, reference)
        base: Scorer = reference
    else:
        tuned, base = (_scored(s, config.evaluation.score, trie) for s in (policy, reference))
    if config.mode.name == "local":
        tuned = PerClientScorer(tuned, own_adapter(ranked, population))
    return (tuned, base) if config.evaluation.base_model else (tuned,)


def make_baselines(
    choice: schema.Baselines, likes: TrainingLikes, *, seed: int
) -> tuple[Scorer, ...]:
    """Return the simple baselines that a configuration names, each once."""
    return tuple(baseline(name, choice, likes, seed) for name in dict.fromkeys(choice.names))


def _scored(scorer: LanguageModelScorer, score: str, trie: CatalogueTrie) -> Scorer:
    match score:
        case "mean":
            return MeanScorer(scorer, trie.depths[trie.terminal_nodes] + 1)
        case "pmi":
            return PmiScorer(scorer)
        case _:
            return scorer


def training_likes(liked: Sequence[Collection[str]], catalogue: Catalogue) -> TrainingLikes:
    """Return what the baselines learn from; another folder's catalogue may lack some items.

    Args:
        liked: Items that each training client likes, in the facts that it trains on.
        catalogue: The items, in column order.
    """
    return TrainingLikes(
        catalogue, [[item for item in of_client if item in catalogue] for of_client in liked]
    )


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


def baseline(name: str, choice: schema.Baselines, likes: TrainingLikes, seed: int) -> Scorer:
    """Return the simple model of a name, which learns from likes alone."""
    match name:
        case "popularity":
            return Popularity(likes)
        case "genre_popularity":
            return GenrePopularity(likes)
        case "item_knn":
            return ItemKnn(likes, neighbours=choice.neighbours, shrinkage=choice.shrinkage)
        case "ease":
            return Ease(likes, l2=choice.l2)
        case "random":
            return RandomScorer(likes.catalogue, seed)
        case "constant":
            return ConstantScorer(likes.catalogue)
        case _:
            return PromptCopy(likes.catalogue)
