"""What is ranked, and what it is compared with."""

from typing import Annotated, Literal

from pydantic import Field

from pkgllm.baselines import SCORERS, ScorerChoice
from pkgllm.baselines.ease import Ease
from pkgllm.baselines.item_knn import ItemKnn
from pkgllm.baselines.popularity import Popularity
from pkgllm.config.choices import ChosenList, Settings
from pkgllm.config.section import Positive, PositiveFloat, Section
from pkgllm.evaluation.lists import ListSettings


class Evaluation(Section):
    """What is ranked, and how sure the numbers are."""

    part: Literal["test", "validation"] = "test"
    """Which held-out facts are asked for; tune on ``validation`` only."""
    max_clients: Positive | None = None
    """Clients to rank, drawn with the seed; all when absent."""
    bootstrap_resamples: Annotated[int, Field(ge=100)] = 10_000
    """Resamples of the clients behind each 95 % interval."""
    score: Literal["sum", "mean", "pmi", "policy_reference_ratio"] = "sum"
    """A title's score by a language model: its log-probability, that per token, what the facts add
    to it, or what tuning added (the base model keeps ``sum`` then). Only ``sum`` can leave out
    parts of the catalogue; choose on ``validation`` only."""
    memory_gib: PositiveFloat = 2.0
    """Memory that ranking may take beside the model's parameters, GiB; sets how much goes through
    the model at once."""
    base_model: bool = True
    """Whether the base model, before tuning, is asked as well. It answers alike in every run with
    the same data and prompts, and takes as long as the tuned one."""
    baselines: Annotated[
        tuple[ScorerChoice, ...], ChosenList(SCORERS, ("popularity", "item_knn", "ease"))
    ] = (Popularity(), ItemKnn(), Ease())
    """What a run is compared with beside its own base model; tune on ``validation`` only. In a
    mapping, ``names`` lists them and each other key is given to those that have it."""
    lists: Annotated[ListSettings, Settings()] = ListSettings()
