"""Fold-in: a vector for a person from the facts that are visible now; the model is frozen."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from pykeen.models import InductiveNodePiece
from pykeen.triples import CoreTriplesFactory
from torch import Tensor

from pkgllm.kge.frozen import Frozen
from pkgllm.kge.hake_interaction import HakeInteraction
from pkgllm.kge.pykeen_door import Model, entity_parts, model_device, no_bars
from pkgllm.kge.settings import FoldIn
from pkgllm.randomness import stream, torch_seed

PAIRS_AT_ONCE = 4096
"""Pairs of a person and an item that are scored together; ConvKB holds filters x dim of each."""


@dataclass(frozen=True, slots=True, eq=False)
class Visible:
    """What is visible of one person."""

    client: str
    facts: NDArray[np.int64]
    """(relation, item entity), distinct; shape ``(facts, 2)``, and there may be none."""
    start: Sequence[Tensor] | None
    """The person's trained vector, one tensor for each part of an entity; None for one who took no
    part in training."""


def mean_person(model: Model, persons: Tensor) -> list[Tensor]:
    """Return the mean of trained persons, one tensor for each part of an entity.

    Phases of HAKE are averaged as directions, everything else as numbers.
    """
    parts = [part.detach() for part in entity_parts(model, persons)]
    if isinstance(model.interaction, HakeInteraction):
        return list(model.interaction.mean_entity(parts))
    return [part.mean(dim=0) for part in parts]


def fold_in(
    frozen: Frozen,
    visible: Sequence[Visible],
    *,
    prior: Sequence[Tensor],
    items: NDArray[np.int64],
    settings: FoldIn,
    seed: int,
) -> list[Tensor]:
    r"""Fit one vector for each person; the rest of the model is frozen.

    A person starts at its trained vector, or at ``prior``, and takes ``settings.steps`` steps of
    Adam on the model's own training loss, summed over the person's visible facts: each against
    ``settings.num_negatives`` other items in its place. Someone without facts stays at the start.
    The model is in evaluation mode, so nothing is dropped and batch norms use what they learned.
    Draws depend on the seed and the client alone, so a person's vector does not depend on who else
    is fit.

    A model made of several stages is fit in the last one: for KBGAT the vector that ConvKB reads is
    fit, and attention is not run again.

    Args:
        frozen: The trained model, or that of each person.
        visible: The persons; each client once.
        prior: The start of those who took no part, one tensor for each part of an entity.
        items: Entities that negatives are drawn from.
        settings: Of the fit.
        seed: Of the draws.

    Returns:
        One tensor for each part of an entity, shape ``(len(visible), *part)``.
    """
    groups = [
        _fit(frozen.some(begin, end), visible[begin:end], prior, items, settings, seed)
        for begin, end in _groups(visible, settings, padded=frozen.padded)
    ]
    if not groups:
        return [part.new_empty(0, *part.shape) for part in prior]
    return [torch.cat(parts) for parts in zip(*groups, strict=True)]


def _groups(
    visible: Sequence[Visible], settings: FoldIn, *, padded: bool
) -> Iterator[tuple[int, int]]:
    """Cut the persons where their facts are too many for one step."""
    pairs = [len(person.facts) * (1 + settings.num_negatives) for person in visible]
    begin = total = most = 0
    for place, more in enumerate(pairs):
        most = max(most, more)
        total = (place - begin + 1) * most if padded else total + more
        if place > begin and total > PAIRS_AT_ONCE:
            yield begin, place
            begin, total, most = place, more, more
    if begin < len(visible):
        yield begin, len(visible)


def _fit(
    frozen: Frozen,
    visible: Sequence[Visible],
    prior: Sequence[Tensor],
    items: NDArray[np.int64],
    settings: FoldIn,
    seed: int,
) -> list[Tensor]:
    device = frozen.device
    starts = [part.expand(len(visible), *part.shape).clone() for part in prior]
    for row, one in enumerate(visible):
        if one.start is not None:
            for start, part in zip(starts, one.start, strict=True):
                start[row] = part.detach()
    rows = np.repeat(np.arange(len(visible)), [len(person.facts) for person in visible])
    if not len(rows) or not settings.steps:
        return starts
    facts = torch.from_numpy(np.concatenate([person.facts for person in visible])).to(device)
    owner = torch.from_numpy(rows).to(device)
    drawn = torch.from_numpy(draw_negatives(visible, items, settings, seed)).to(device)
    relations = frozen.relations(owner, facts[:, :1])
    liked = frozen.entities(owner, facts[:, 1:])
    persons = [start.clone().requires_grad_() for start in starts]
    optimizer = torch.optim.Adam(persons, lr=settings.learning_rate)
    for step in range(settings.steps):
        others = frozen.entities(owner, drawn[step])
        heads = [person[owner].unsqueeze(1) for person in persons]
        loss = frozen.loss.process_slcwa_scores(
            positive_scores=frozen.scores(owner, heads, relations, liked),
            negative_scores=frozen.scores(owner, heads, relations, others),
        )
        # A mean over all persons' facts would let each take the smaller steps the more there are.
        gradients = torch.autograd.grad(loss * len(facts), persons)
        for person, gradient in zip(persons, gradients, strict=True):
            person.grad = gradient
        optimizer.step()
    # A row without facts stays in place, since its gradient is zero from the first step.
    return [person.detach() for person in persons]


def draw_negatives(
    visible: Sequence[Visible], items: NDArray[np.int64], settings: FoldIn, seed: int
) -> NDArray[np.int64]:
    """Return the negatives of each visible fact at each step.

    Returns:
        Item entities, shape ``(steps, facts of all persons, num_negatives)``. Where a person's
        facts hold all items, they are drawn from all.
    """
    negatives = []
    for person in visible:
        if len(person.facts):
            others = np.setdiff1d(items, person.facts[:, 1])
            pool = others if len(others) else items
            shape = (settings.steps, len(person.facts), settings.num_negatives)
            negatives.append(stream(seed, "fold_in", person.client).choice(pool, size=shape))
    return np.concatenate(negatives, axis=1)


def tokenized_persons(
    model: InductiveNodePiece, visible: Sequence[Visible], *, seed: int
) -> list[Tensor]:
    """Return persons as NodePiece makes them: from the relations of their visible facts.

    Nothing is fit, and nothing depends on who took part in training. Someone without facts is made
    of padding alone.

    Returns:
        One tensor, shape ``(len(visible), dim)``.
    """
    vectors = []
    for person in visible:
        relations = np.unique(person.facts[:, 0])
        # One entity stands for all items: only the relations are read.
        triples = np.stack([np.zeros_like(relations), relations, np.ones_like(relations)], axis=1)
        factory = CoreTriplesFactory(
            torch.from_numpy(triples),
            num_entities=2,
            num_relations=model.num_real_relations,
            create_inverse_triples=True,
        )
        with torch.random.fork_rng(devices=[]), no_bars(), torch.no_grad():
            torch.manual_seed(torch_seed(seed, "fold_in", person.client))
            made = model.create_entity_representation_for_new_triples(factory)
            made = made.to(model_device(model)).eval()
            vectors.append(made(torch.zeros(1, dtype=torch.long, device=model_device(model)))[0])
    return [torch.stack(vectors)]
