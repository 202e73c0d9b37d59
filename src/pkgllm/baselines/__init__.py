"""Scorers that learn from likes alone, and controls: each one file, its settings and its model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pkgllm.bounds import check_bounds
from pkgllm.registry import Choice, Registry

if TYPE_CHECKING:
    from pkgllm.baselines.likes import TrainingLikes
    from pkgllm.evaluation.scorer import Scorer


@dataclass(frozen=True, slots=True, kw_only=True)
class ScorerChoice(Choice, ABC):
    """A simple model that a run can be compared with, by its settings.

    Its name in results is the name by which a configuration chooses it.

    Raises:
        ValueError: If a setting is outside its bounds.
    """

    def __post_init__(self) -> None:
        """Check the bounds, which a configuration checks before."""
        check_bounds(self)

    @abstractmethod
    def fit(self, likes: TrainingLikes, *, seed: int = 0) -> Scorer:
        """Learn from what the training clients like.

        Args:
            likes: The catalogue, and the liked items of each training client.
            seed: The run's seed, for a scorer that draws random numbers.

        Returns:
            A scorer of every item of the catalogue. It may also score clients that took no part in
            training, by the likes in their visible graphs.
        """


SCORERS: Registry[ScorerChoice] = Registry(
    "scorer",
    "pkgllm.scorers",
    {
        "popularity": "pkgllm.baselines.popularity:Popularity",
        "genre_popularity": "pkgllm.baselines.genre_popularity:GenrePopularity",
        "item_knn": "pkgllm.baselines.item_knn:ItemKnn",
        "ease": "pkgllm.baselines.ease:Ease",
        "slim": "pkgllm.baselines.slim:Slim",
        "random": "pkgllm.baselines.random:Random",
        "constant": "pkgllm.baselines.constant:Constant",
        "prompt_copy": "pkgllm.baselines.prompt_copy:PromptCopy",
    },
)
"""Every simple model that ``evaluation.baselines`` can name."""
