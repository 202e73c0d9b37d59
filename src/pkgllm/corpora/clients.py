"""The clients of a corpus: who they are, who takes part, and who is kept out of training."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal
from urllib.parse import quote

from pkgllm.corpora.catalogue import Catalogue
from pkgllm.errors import DataError
from pkgllm.graph.personal_graph import PersonalGraph
from pkgllm.randomness import stream


@dataclass(frozen=True, slots=True)
class Corpus:
    """What a data set says: the items, and one graph for each client."""

    name: str
    catalogue: Catalogue
    graphs: tuple[PersonalGraph, ...]
    """Sorted by owner."""
    digests: Mapping[str, str]
    """SHA-256 of what was read, hexadecimal, by the name of the file or of the hub's split."""
    notes: tuple[str, ...] = ()
    """What a reader should know of how the files were read, one sentence each."""

    def __post_init__(self) -> None:
        ordered = tuple(sorted(self.graphs, key=lambda graph: graph.owner))
        object.__setattr__(self, "graphs", ordered)


@dataclass(frozen=True, slots=True)
class LeftOut:
    """The clients that take no part because they have too few liked facts."""

    clients: tuple[str, ...]
    min_liked: int
    """The number of liked facts that each of them falls short of."""


def take_part(
    corpus: Corpus, *, min_liked: int, below_min_liked: Literal["refuse", "leave_out"]
) -> tuple[Corpus, LeftOut]:
    """Keep the clients that have enough liked facts to hold some out; leave out or refuse others.

    Returns:
        The corpus of those who take part, and those who do not.

    Raises:
        DataError: If a client is refused, or nobody is left.
    """
    short = [g for g in corpus.graphs if len(g.with_relation("liked")) < min_liked]
    if short and below_min_liked == "refuse":
        first = short[0]
        raise DataError(
            f"{corpus.name}: client {first.owner} has {len(first.with_relation('liked'))} liked "
            f"facts, and each client needs {min_liked}; {len(short)} of {len(corpus.graphs)} "
            "clients have fewer: set clients.below_min_liked: leave_out to go on without them"
        )
    left_out = LeftOut(tuple(graph.owner for graph in short), min_liked)
    out = frozenset(left_out.clients)
    kept = tuple(graph for graph in corpus.graphs if graph.owner not in out)
    if not kept:
        raise DataError(
            f"{corpus.name}: no client has {min_liked} liked facts, of {len(corpus.graphs)} "
            "clients: lower clients.min_liked or read more dialogues"
        )
    return replace(corpus, graphs=kept), left_out


def unseen_clients(owners: Collection[str], *, share: float, seed: int) -> frozenset[str]:
    """Draw the clients that take no part in training, to see how the model does on new people.

    Args:
        owners: All clients; their order does not matter.
        share: Share to draw, from 0 to below 1. Above 0 it draws at least one client of several,
            and never all of them.
        seed: The run's seed.

    Raises:
        ValueError: If the share is out of range.

    Example:
        >>> len(unseen_clients([f"p{i}" for i in range(20)], share=0.1, seed=0))
        2
    """
    if not 0 <= share < 1:
        raise ValueError(f"share must be from 0 to below 1, got {share}")
    pool = sorted(set(owners))
    if share == 0 or len(pool) < 2:
        return frozenset()
    num_drawn = min(max(1, round(share * len(pool))), len(pool) - 1)
    drawn = stream(seed, "unseen_clients").choice(len(pool), size=num_drawn, replace=False)
    return frozenset(pool[index] for index in drawn)


def graph_file(built: Path, client: str) -> Path:
    """Return where ``pkgllm data build`` puts a client's graph; any id makes a safe name."""
    return built / "graphs" / f"{quote(client, safe='')}.jsonld"
