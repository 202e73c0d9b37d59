"""Recommend from one person's graph with a trained adapter: the most probable items, exactly.

Items are of any class: an item has a name, which the model scores, and public facts, which decide
the constraints.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from peft import PeftModel
from transformers import PreTrainedModel

from pkgllm.assistant.guidance import Constraints
from pkgllm.assistant.scopes import Scopes
from pkgllm.corpora.catalogue import Catalogue, Item
from pkgllm.corpora.sameness import SameItems
from pkgllm.errors import DataError
from pkgllm.evaluation.ranking.branches import SlotMemory
from pkgllm.evaluation.ranking.language_model import LanguageModelScorer
from pkgllm.evaluation.ranking.trie import CatalogueTrie
from pkgllm.evaluation.scorer import ClientQueries
from pkgllm.graph.personal_graph import PersonalGraph
from pkgllm.prompts.prompts import Prompt, PromptWriter

NO_CONSTRAINTS = Constraints()


@dataclass(frozen=True, slots=True)
class Recommendation:
    """One recommended item."""

    item: Item
    log_probability: float
    """Of its name and terminator after the person's prompt, nats."""


class Recommender:
    """Recommends items of one catalogue with one model.

    Args:
        model: The policy, or a base model.
        writer: Writes prompts in the form of the training.
        catalogue: The items.
        max_positions: Longest sequence of the model, tokens.
    """

    def __init__(
        self,
        model: PreTrainedModel | PeftModel,
        writer: PromptWriter,
        catalogue: Catalogue,
        *,
        max_positions: int,
    ) -> None:
        self.model = model
        self.writer = writer
        self.catalogue = catalogue
        self.scopes = Scopes(catalogue)
        self.max_positions = max_positions
        self._memory = SlotMemory()

    @cached_property
    def _same_items(self) -> SameItems:
        return SameItems(self.catalogue)

    def over(self, catalogue: Catalogue) -> "Recommender":
        """Return a recommender with the same model for another catalogue."""
        return Recommender(self.model, self.writer, catalogue, max_positions=self.max_positions)

    def recommend(
        self,
        graph: PersonalGraph,
        request: str = "",
        constraints: Constraints = NO_CONSTRAINTS,
        k: int = 10,
        *,
        known: Collection[str] = (),
    ) -> tuple[Recommendation, ...]:
        """Return the ``k`` most probable items that meet the constraints, most probable first.

        No item of the graph is recommended, whatever its relation.

        Args:
            graph: The facts in the prompt.
            request: The person's request in their own words, in the prompt as well.
            constraints: In the prompt, and a filter of the candidates.
            k: Number of items; fewer if there are fewer candidates.
            known: Further ids to leave out, if the graph is only a part.

        Raises:
            ConfigError: If a constraint names a scope that the catalogue does not have.
            DataError: If a constraint names a value that no item has, there is no candidate, or the
                request alone does not fit into a prompt.
            ModelError: If the model gives no usable probability.
        """
        candidates = self.candidates(graph, constraints, known=known)
        columns, scores = self._scorer_for(request, constraints).best(_query(graph), candidates, k)
        return tuple(
            Recommendation(self.catalogue.items[column], float(score))
            for column, score in zip(columns.tolist(), scores.tolist(), strict=True)
        )

    def candidates(
        self, graph: PersonalGraph, constraints: Constraints, *, known: Collection[str] = ()
    ) -> NDArray[np.bool_]:
        """Return which items are candidates, shape ``(len(catalogue),)``.

        An item is in the graph if any of its entries is, by id or by name: graphs from elsewhere
        have other ids. Of several entries of one item only the first is a candidate.

        Raises:
            ConfigError: If a constraint names a scope that the catalogue does not have.
            DataError: If there is none, or a constraint names a value that no item has.
        """
        same = self._same_items
        ids = frozenset().union(*map(same.twins, graph.tails | set(known)))
        ids |= frozenset().union(*(same.named(f.name, f.item_class) for f in graph.facts))
        new = np.array([i.id not in ids and same.first(i.id) == i.id for i in self.catalogue])
        allowed = constraints.allowed(self.scopes)
        if not (new & allowed).any():
            raise DataError(
                f"graph of {graph.owner!r}: nothing is left to recommend: of "
                f"{len(self.catalogue)} items, {int(allowed.sum())} meet the constraints"
                f"{f' ({constraints.words})' if constraints else ''}, and "
                f"{int((allowed & ~new).sum())} of those are in the graph already; relax the "
                "constraints"
            )
        return new & allowed

    def prompt(
        self,
        graph: PersonalGraph,
        request: str = "",
        constraints: Constraints = NO_CONSTRAINTS,
    ) -> Prompt:
        """Return the prompt, with the number of facts that did not fit."""
        return self._writer_for(request, constraints).write(graph)

    def log_probabilities(
        self,
        graphs: Sequence[PersonalGraph],
        items: Sequence[Item],
        request: str = "",
        constraints: Constraints = NO_CONSTRAINTS,
    ) -> NDArray[np.float64]:
        """Return the log-probability of each item after each graph's prompt, nats.

        Each prompt is computed once for all items, several prompts at a time.

        Args:
            graphs: The facts of each prompt.
            items: Distinct.
            request: The person's request in their own words.
            constraints: In the prompt.

        Returns:
            Shape ``(len(graphs), len(items))``.
        """
        # A trie of these names alone: searching the whole one takes longer than the model.
        narrowed = self.over(Catalogue(items))
        scorer = narrowed._scorer_for(request, constraints)
        columns = [narrowed.catalogue.index_by_id[item.id] for item in items]
        return scorer.scores([_query(graph) for graph in graphs])[:, columns]

    def scorer(self, prompt_ids: Callable[[PersonalGraph], Sequence[int]]) -> LanguageModelScorer:
        """Return a scorer of the catalogue after given prompts."""
        return LanguageModelScorer(
            "recommender",
            self.model,
            prompt_ids,
            self._trie,
            max_positions=self.max_positions,
            longest_prompt=self.writer.max_tokens,
            memory=self._memory,
        )

    def _scorer_for(self, request: str, constraints: Constraints) -> LanguageModelScorer:
        writer = self._writer_for(request, constraints)
        return self.scorer(lambda graph: writer.write(graph).token_ids)

    def _writer_for(self, request: str, constraints: Constraints) -> PromptWriter:
        parts = (self.writer.request, request.strip(), constraints.words)
        return self.writer.asking(" ".join(part for part in parts if part))

    @cached_property
    def _trie(self) -> CatalogueTrie:
        sequences = [self.writer.completion_ids(name) for name in self.catalogue.names]
        return CatalogueTrie(sequences, names=self.catalogue.names)


def _query(graph: PersonalGraph) -> ClientQueries:
    return ClientQueries(graph.owner, False, graph, ())
