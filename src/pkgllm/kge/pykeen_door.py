"""Typed access to PyKEEN's models."""

import io
from contextlib import AbstractContextManager, redirect_stderr
from typing import Any

import torch
from pykeen.models import ERModel
from pykeen.utils import NoRandomSeedNecessary
from torch import Tensor
from torch.func import functional_call
from torch.nn import Module

OWN_SEED: Any = NoRandomSeedNecessary
"""Seed of a PyKEEN model that keeps it from seeding Python, numpy and torch globally."""

Model = ERModel[Any, Any, Any]
"""A model of PyKEEN made of an interaction and of representations that it reads."""


def no_bars() -> AbstractContextManager[object]:
    """Hide the progress bars that PyKEEN draws on the standard error, and that no option stops."""
    return redirect_stderr(io.StringIO())


def entity_parts(model: Model, entities: Tensor | None = None) -> list[Tensor]:
    """Return what an interaction reads of entities: a tensor for each part.

    Args:
        model: In evaluation mode.
        entities: Indices of any shape; None for all.
    """
    return [part(entities) for part in model.entity_representations]


def relation_parts(model: Model, relations: Tensor) -> list[Tensor]:
    """Return what an interaction reads of relations, by their number in the triples."""
    # A model that learned inverses too has every relation at an even place, its inverse behind it.
    places = relations * 2 if model.use_inverse_triples else relations
    return [part(places) for part in model.relation_representations]


def score_parts(
    model: Model, heads: list[Tensor], relations: list[Tensor], tails: list[Tensor]
) -> Tensor:
    """Return the scores of broadcast parts."""
    scores: Tensor = model.interaction(*map(_single, (heads, relations, tails)))
    return scores


def score_with(
    interaction: Module,
    network: dict[str, Tensor],
    heads: list[Tensor],
    relations: list[Tensor],
    tails: list[Tensor],
) -> Tensor:
    """Return the scores of broadcast parts by an interaction with the parameters of ``network``."""
    scores: Tensor = functional_call(
        interaction, network, tuple(map(_single, (heads, relations, tails)))
    )
    return scores


def _single(parts: list[Tensor]) -> Any:
    return parts[0] if len(parts) == 1 else tuple(parts)


def model_device(model: Model) -> torch.device:
    """Return where a model is."""
    device: torch.device = model.device
    return device


def single_vectors(model: Model) -> tuple[Tensor, Tensor]:
    """Return the entities and the relations of a trained model with one vector for each."""
    (entities,), (relations,) = model.entity_representations, model.relation_representations
    return entities().detach().cpu(), relations().detach().cpu()


def frozen_vectors(vectors: Tensor) -> dict[str, Any]:
    """Return PyKEEN's settings of a table that holds these vectors and is not trained."""
    return {
        "shape": vectors.shape[1],
        # A copy each time: PyKEEN takes the tensor itself for its table, which it fills with noise
        # when training begins, before it asks again.
        "initializer": lambda _: vectors.clone(),
        "trainable": False,
    }
