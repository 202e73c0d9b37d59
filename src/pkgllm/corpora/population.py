"""The clients of a run, with what is held out of each."""

from dataclasses import dataclass

from pkgllm.corpora.clients import Corpus, LeftOut, take_part, unseen_clients
from pkgllm.corpora.settings import Clients, Split
from pkgllm.corpora.splits import ClientSplit, split_corpus, split_digest


@dataclass(frozen=True, slots=True)
class Population:
    """The clients of a run with what is held out of each."""

    corpus: Corpus
    left_out: LeftOut
    splits: tuple[ClientSplit, ...]

    @classmethod
    def of(
        cls, corpus: Corpus, clients: Clients, split: Split, *, seed: int, all_unseen: bool = False
    ) -> "Population":
        """Choose who takes part, who is kept out of training, and what is held out.

        Raises:
            DataError: If a client is refused, or nobody is left.
        """
        corpus, left_out = take_part(
            corpus, min_liked=clients.min_liked, below_min_liked=clients.below_min_liked
        )
        owners = [graph.owner for graph in corpus.graphs]
        unseen = unseen_clients(owners, share=clients.unseen_share, seed=seed)
        splits = split_corpus(
            corpus,
            test_share=split.test_share,
            validation_share=split.validation_share,
            unseen=frozenset(owners) if all_unseen else unseen,
        )
        return cls(corpus, left_out, splits)

    @property
    def in_training(self) -> tuple[ClientSplit, ...]:
        """The clients that train."""
        return tuple(split for split in self.splits if split.seen_in_training)

    def liked_in_training(self) -> list[list[str]]:
        """Return what each training client likes, in the facts that it trains on."""
        return [
            [fact.tail for fact in split.train_graph.with_relation("liked")]
            for split in self.in_training
        ]

    def split_record(self) -> dict[str, object]:
        """Return who was unseen and what is held out of whom, for a file. Private."""
        return {
            "digest": split_digest(self.splits),
            "left_out": self.left_out.clients,
            "clients": {
                split.client: {
                    "seen_in_training": split.seen_in_training,
                    "validation": [fact.tail for fact in split.validation],
                    "test": [fact.tail for fact in split.test],
                }
                for split in self.splits
            },
        }
