"""What clients and server send each other when embeddings are trained over clients, and the mean.

A client's model has one person, who is its entity 0. A table of entities is sent from row 1 on, so
no message has a row of a person. Tables are sent whole, since a list of the rows that changed would
be a list of what the person watched; and the mean is uniform, since a weight would be the number of
a person's facts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from pkgllm.federation.algorithm import Algorithm
from pkgllm.federation.messages import Update
from pkgllm.kge.pykeen_door import Model
from pkgllm.kge.settings import Exchange

Kind = Literal["entities", "relations", "network"]
"""What a table has rows for; ``network`` is what belongs to no entity and no relation."""

Tables = dict[str, Tensor]
"""Trained numbers by the name that the model knows them by."""

EXCHANGED: Mapping[Exchange, frozenset[Kind]] = {
    "isolation": frozenset(),
    "fede": frozenset({"entities", "network"}),
    "fedr": frozenset({"relations", "network"}),
    "fedavg": frozenset({"entities", "relations", "network"}),
}
"""Kinds of tables that leave the client; the others stay with it from round to round."""

PERSONS = 1
"""Rows of a table of entities that are the client's own person: the first."""


def kind_of(name: str) -> Kind:
    """Return what a model's table has rows for, by its name.

    Example:
        >>> kind_of("entity_representations.0._embeddings.weight")
        'entities'
        >>> kind_of("entity_representations.0.encoder.relations"), kind_of("interaction.conv.bias")
        ('relations', 'network')
    """
    if name.endswith(".encoder.entities"):
        return "entities"
    if name.endswith(".encoder.relations"):
        return "relations"
    if name.endswith("._embeddings.weight"):
        return "entities" if name.startswith("entity") else "relations"
    return "network"


def model_tables(model: Model) -> Tables:
    """Return all that training changes in a model: the tensors themselves, sorted by name.

    Running means of batch norms are among it; what is frozen is not.
    """
    saved = model.state_dict()
    tables = {
        name: parameter.detach()
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }
    tables |= {
        name: buffer
        for name, buffer in model.named_buffers()
        if name in saved and buffer.is_floating_point()
    }
    return dict(sorted(tables.items()))


def shared_part(tables: Tables, exchange: Exchange) -> Tables:
    """Return copies of what may leave a client, on the CPU: never the person's row.

    Example:
        >>> tables = {"entity_representations.0._embeddings.weight": torch.arange(3.0)[:, None]}
        >>> [part.tolist() for part in shared_part(tables, "fede").values()]
        [[[1.0], [2.0]]]
        >>> shared_part(tables, "fedr")
        {}
    """
    return {
        name: _without_person(name, table).detach().to("cpu", copy=True)
        for name, table in tables.items()
        if kind_of(name) in EXCHANGED[exchange]
    }


def local_part(tables: Tables, exchange: Exchange) -> Tables:
    """Return copies of what stays with a client, on the CPU: the person's row, at least.

    Together with :func:`shared_part` it is everything.
    """
    local = {}
    for name, table in tables.items():
        kind = kind_of(name)
        if kind not in EXCHANGED[exchange]:
            local[name] = table.detach().to("cpu", copy=True)
        elif kind == "entities":
            local[name] = table[:PERSONS].detach().to("cpu", copy=True)
    return local


@torch.no_grad()
def load_tables(model: Model, *, shared: Tables, local: Tables, exchange: Exchange) -> None:
    """Write what a client holds and what it was sent into a model, in place.

    The model's own constraints, such as relations of length 1 in RotatE, are applied afterwards: a
    mean of vectors on a circle lies inside it.

    Args:
        model: Changed.
        shared: As :func:`shared_part` returns it.
        local: As :func:`local_part` returns it; tables that are not in it stay as they are.
        exchange: What is exchanged.
    """
    tables = model_tables(model)
    for name, value in shared.items():
        _without_person(name, tables[name]).copy_(value)
    for name, value in local.items():
        whole = kind_of(name) not in EXCHANGED[exchange]
        (tables[name] if whole else tables[name][:PERSONS]).copy_(value)
    model.post_parameter_update()


@dataclass(frozen=True, slots=True, kw_only=True)
class TableMean(Algorithm):
    r"""The uniform mean of a cohort's tables, :math:`\frac{1}{n} \sum_c T_c`, in double precision.

    FedE (Chen et al. 2021) takes an entity's mean over the clients that own it. Here everybody
    holds the public facts of all items, so everybody owns every row that is sent, and the two means
    are one.

    Example:
        >>> updates = [Update(adapter={"t": torch.tensor(v)}) for v in ([1.0, 2.0], [3.0, 6.0])]
        >>> TableMean().aggregate(updates, updates[0].adapter)
        {'t': tensor([2., 4.])}
    """

    citation: ClassVar[str] = "Chen et al. 2021, arXiv:2010.12882"
    equal_weights: ClassVar[bool] = True
    client_state: ClassVar[bool] = True

    name: Literal["table_mean"] = "table_mean"

    def aggregate(self, updates: Sequence[Update], adapter: Tables) -> Tables:
        """Return the mean of each table; the mean of equal tables is that table."""
        mean = {}
        for name in adapter:
            total = updates[0].adapter[name].double()
            for update in updates[1:]:
                total += update.adapter[name]
            mean[name] = (total / len(updates)).float()
        return mean


def _without_person(name: str, table: Tensor) -> Tensor:
    return table[PERSONS:] if kind_of(name) == "entities" else table
