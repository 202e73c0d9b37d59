"""What clients and server send each other when embeddings are trained over clients, and the mean.

A client's model knows one person, who is its entity 0. That row stays: a table of entities is sent
from row 1 on, so no message has a row for anybody. Tables are sent whole, since a list of the rows
that changed would be a list of what the person watched; and the mean is uniform, since a weight
would tell how many facts somebody has.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from pkgllm.kge.pykeen_door import Model
from pkgllm.kge.settings import Exchange

Kind = Literal["entities", "relations", "network"]
"""What a table has rows for; ``network`` is what belongs to no entity and no relation."""

Tables = Mapping[str, Tensor]
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


@dataclass(frozen=True, slots=True, eq=False)
class Message:
    """All that passes between the server and a client in one direction of a round."""

    sender: Literal["server", "client"]
    client: str
    """Who receives or sends it."""
    round_num: int
    tables: Tables
    """Of items, values and relations, each whole; of no person."""


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


def model_tables(model: Model) -> dict[str, Tensor]:
    """Return all that training changes in a model: the tensors themselves, sorted by name.

    Running means of batch norms are among it; what is frozen is not.
    """
    kept = model.state_dict()
    found = {
        name: parameter.detach()
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }
    found |= {
        name: buffer
        for name, buffer in model.named_buffers()
        if name in kept and buffer.is_floating_point()
    }
    return dict(sorted(found.items()))


def shared_part(tables: Tables, exchange: Exchange) -> dict[str, Tensor]:
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


def local_part(tables: Tables, exchange: Exchange) -> dict[str, Tensor]:
    """Return copies of what stays with a client, on the CPU: the person's row, at least.

    Together with :func:`shared_part` it is everything.
    """
    found = {}
    for name, table in tables.items():
        kind = kind_of(name)
        if kind not in EXCHANGED[exchange]:
            found[name] = table.detach().to("cpu", copy=True)
        elif kind == "entities":
            found[name] = table[:PERSONS].detach().to("cpu", copy=True)
    return found


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


def mean_tables(updates: Iterable[Tables]) -> dict[str, Tensor]:
    r"""Return the uniform mean of the tables of a cohort, :math:`\frac{1}{n} \sum_c T_c`.

    FedE (Chen et al. 2021, arXiv:2010.12882) takes an entity's mean over the clients that own it.
    Here everybody holds the public facts of all items, so everybody owns every row that is sent,
    and the two means are one.

    Raises:
        ValueError: If there is none.

    Example:
        >>> mean_tables([{"t": torch.tensor([1.0, 2.0])}, {"t": torch.tensor([3.0, 6.0])}])
        {'t': tensor([2., 4.])}
    """
    total: dict[str, Tensor] = {}
    count = 0
    for update in updates:
        count += 1
        for name, table in update.items():
            # In double precision, so that the mean of equal tables is that table.
            total[name] = total[name] + table.double() if name in total else table.double()
    if not count:
        raise ValueError("at least one update must be given, got none")
    return {name: (table / count).float() for name, table in total.items()}


def _without_person(name: str, table: Tensor) -> Tensor:
    return table[PERSONS:] if kind_of(name) == "entities" else table
