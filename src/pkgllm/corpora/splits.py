"""What is held out: the latest liked facts of each client, so that no prompt sees the future."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from pkgllm.corpora.clients import Corpus
from pkgllm.graph.personal_graph import Fact, PersonalGraph

Part = Literal["validation", "test"]


@dataclass(frozen=True, slots=True)
class ClientSplit:
    """One client's facts by what they are for.

    Guarantees (each one is a test): the held-out parts do not overlap; every fact of a visible
    graph is strictly earlier than every fact it is asked for; nothing later is visible, liked or
    not.
    """

    graph: PersonalGraph
    """Everything the client ever said."""
    seen_in_training: bool
    """False for a client that takes no part in training."""
    validation: tuple[Fact, ...]
    """Liked facts just before the test, in order of time; may be empty."""
    test: tuple[Fact, ...]
    """The latest liked facts, in order of time; at least one, or none at all of anybody."""

    @property
    def client(self) -> str:
        """The owner of the graph."""
        return self.graph.owner

    @property
    def train_graph(self) -> PersonalGraph:
        """The facts strictly before the first held-out fact of either part, if there is one."""
        held_out = self.validation + self.test
        return self.graph.before(held_out[0].time) if held_out else self.graph

    def visible_graph(self, part: Part) -> PersonalGraph:
        """Return the facts strictly before the first held-out fact of a part.

        A part that holds nothing out hides nothing that training does not hide.
        """
        held_out = self.held_out(part)
        return self.graph.before(held_out[0].time) if held_out else self.train_graph

    def held_out(self, part: Part) -> tuple[Fact, ...]:
        """Return the facts to be asked for, in order of time."""
        return self.validation if part == "validation" else self.test


def split_client(
    graph: PersonalGraph,
    *,
    test_share: float,
    validation_share: float,
    seen_in_training: bool,
) -> ClientSplit:
    """Hold out the last liked facts of one client.

    Of ``n`` liked facts in order of time, the last ``max(1, round(test_share * n))`` are the test
    and the ``round(validation_share * n)`` before them, as far as there are so many, the
    validation. Halves are rounded to the even number. Of a test share of 0 there is no test.

    Raises:
        ValueError: If nothing is liked, or the shares are not from 0 and below 1 together.

    Example:
        >>> from pkgllm.graph.personal_graph import Moment, Provenance
        >>> said = Provenance("own_answer", "conversation/1")
        >>> liked = tuple(Fact("liked", f"{i}", f"Film {i}", Moment(0, i), said) for i in range(10))
        >>> split = split_client(
        ...     PersonalGraph("p1", liked),
        ...     test_share=0.2,
        ...     validation_share=0.1,
        ...     seen_in_training=True,
        ... )
        >>> [fact.tail for fact in split.validation], [fact.tail for fact in split.test]
        (['7'], ['8', '9'])
    """
    if min(test_share, validation_share) < 0 or test_share + validation_share >= 1:
        raise ValueError(
            "test_share and validation_share must be from 0 and below 1 together, "
            f"got {test_share} and {validation_share}"
        )
    liked = graph.with_relation("liked")
    if not liked:
        raise ValueError(f"client {graph.owner}: a liked fact is needed to hold out, got none")
    num_test = max(1, round(test_share * len(liked))) if test_share else 0
    num_validation = min(round(validation_share * len(liked)), len(liked) - num_test)
    first_test = len(liked) - num_test
    return ClientSplit(
        graph=graph,
        seen_in_training=seen_in_training,
        validation=liked[first_test - num_validation : first_test],
        test=liked[first_test:],
    )


def split_corpus(
    corpus: Corpus, *, test_share: float, validation_share: float, unseen: frozenset[str]
) -> tuple[ClientSplit, ...]:
    """Split every client, in the order of the corpus.

    Raises:
        ValueError: If an unseen client is not in the corpus, or a client cannot be split.
    """
    strangers = sorted(unseen - {graph.owner for graph in corpus.graphs})
    if strangers:
        raise ValueError(f"unseen clients must be of the corpus {corpus.name}, got {strangers}")
    return tuple(
        split_client(
            graph,
            test_share=test_share,
            validation_share=validation_share,
            seen_in_training=graph.owner not in unseen,
        )
        for graph in corpus.graphs
    )


def split_digest(splits: Iterable[ClientSplit]) -> str:
    """Return the SHA-256, hexadecimal, of the facts of all clients and of what is held out.

    The order of the clients does not matter.
    """
    content = sorted(
        (
            split.client,
            split.seen_in_training,
            [_fact_content(fact) for fact in split.graph.facts],
            [fact.tail for fact in split.validation],
            [fact.tail for fact in split.test],
        )
        for split in splits
    )
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _fact_content(fact: Fact) -> tuple[object, ...]:
    said = fact.provenance
    return (fact.relation, fact.tail, fact.name, *fact.time, said.source, said.document)
