"""A language model as a scorer: the exact log-probability of every title of the catalogue."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from peft import PeftModel
from transformers import PreTrainedModel

from pkgllm.errors import ModelError, PkgllmError
from pkgllm.evaluation.ranking.branches import Branches, SlotMemory
from pkgllm.evaluation.ranking.memory import plan_memory
from pkgllm.evaluation.ranking.trie import CatalogueTrie
from pkgllm.evaluation.ranking.trie_reader import TrieReader
from pkgllm.evaluation.ranking.trie_search import TIE_NATS, TrieSearch
from pkgllm.evaluation.ranks import best_columns, rank_gold
from pkgllm.evaluation.scorer import ClientQueries, RankedClient
from pkgllm.graph.personal_graph import PersonalGraph
from pkgllm.lm.allocator import keep_freed_memory
from pkgllm.lm.decoder import Decoder

GIBIBYTE = 2**30


class LanguageModelScorer:
    r"""Score a title by the log-probability of its tokens and terminator after the prompt.

    .. math:: s(t) = \sum_i \log p(t_i \mid \text{prompt}, t_1 \ldots t_{i-1})

    in nats, without any length normalisation. The prompt goes through the model once; its keys and
    values serve the whole trie, and its beginning the prompts that begin alike. The result equals
    one forward pass for each title up to rounding; log-probabilities are taken in float32 and added
    up in float64. Ranks are taken from the part of the trie that decides them.

    The model's parameters are read when :meth:`scores` or :meth:`rank` begins.

    Args:
        name: The model's name in results.
        model: A causal language model with full attention, or one with an adapter by PEFT.
        prompt_ids: Token ids of a graph's prompt, up to the point where a title begins.
        trie: The catalogue, tokenised for this model.
        max_positions: Longest sequence the model was made for, tokens.
        longest_prompt: Longest prompt that will be asked for, tokens; what memory is planned for.
        memory_budget: Bytes that ranking may take beside the model's parameters.
        with_adapter: Whether the adapter counts; without it the base model under it is ranked.
        memory: Is used instead of memory of its own, by scorers that rank one after the other.

    Raises:
        ModelError: If the model is of a type that cannot be ranked (:class:`Decoder`), or the
            budget is too small.
    """

    def __init__(
        self,
        name: str,
        model: PreTrainedModel | PeftModel,
        prompt_ids: Callable[[PersonalGraph], Sequence[int]],
        trie: CatalogueTrie,
        *,
        max_positions: int,
        longest_prompt: int | None = None,
        memory_budget: int = 2 * GIBIBYTE,
        with_adapter: bool = True,
        memory: SlotMemory | None = None,
    ) -> None:
        self.name = name
        self._model = model
        self._prompt_ids = prompt_ids
        self._trie = trie
        self._max_positions = max_positions
        self._with_adapter = with_adapter
        self._memory = SlotMemory() if memory is None else memory
        decoder = Decoder(model, with_adapter=with_adapter)
        if decoder.device.type == "cpu":
            keep_freed_memory()
        self._plan = plan_memory(
            decoder,
            trie,
            longest_prompt=longest_prompt or max_positions - trie.longest_input,
            budget=memory_budget,
        )

    @property
    def clients_at_once(self) -> int:
        """Clients that are ranked together."""
        return self._plan.clients

    def scores(self, queries: Sequence[ClientQueries]) -> NDArray[np.float64]:
        """Score the whole catalogue for each client.

        Returns:
            Log-probabilities in nats, shape ``(len(queries), len(catalogue))``.

        Raises:
            ModelError: If a client's prompt is empty, or leaves no room for the longest title, or
                a title's probability is NaN.
        """
        prompts = [self._prompt(query) for query in queries]
        # In this order each shares with the one before it whatever it shares with any before.
        order = sorted(range(len(prompts)), key=prompts.__getitem__)
        scores = np.empty((len(queries), len(self._trie.terminal_nodes)))
        with torch.inference_mode():
            branches = self._branches()
            for start in range(0, len(order), self.clients_at_once):
                places = order[start : start + self.clients_at_once]
                search = self._search(
                    branches, [queries[p] for p in places], [prompts[p] for p in places]
                )
                search.visit(np.ones((len(places), scores.shape[1]), dtype=bool))
                for error in search.errors.values():
                    raise error
                scores[places] = search.scores
        return scores

    def best(
        self, query: ClientQueries, candidates: NDArray[np.bool_], k: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return the ``k`` best candidates of one client and their scores, exactly, best first.

        Args:
            query: What is asked; nothing needs to be held out.
            candidates: True where a column competes. Shape ``(columns,)``.
            k: Length of the list; it is shorter where there are fewer candidates.

        Raises:
            ModelError: As :meth:`scores` does.
        """
        with torch.inference_mode():
            search = self._search(self._branches(), [query], [self._prompt(query)])
            search.visit_what_matters(
                candidates[None], [np.empty(0, dtype=np.int64)], top_k=min(k, candidates.sum())
            )
        for error in search.errors.values():
            raise error
        scores = search.scores[0]
        columns = best_columns(scores, candidates, k)
        return columns, scores[columns]

    def rank(
        self,
        queries: Sequence[ClientQueries],
        candidates: NDArray[np.bool_],
        gold: Sequence[NDArray[np.int64]],
        *,
        top_k: int,
    ) -> list[RankedClient | PkgllmError]:
        """Rank held-out items exactly, from no more of the trie than that needs.

        Candidates whose scores differ by no more than :data:`TIE_NATS` count as tied, because what
        else goes through the model with a title changes how its score is rounded. In bfloat16 it
        changes more than that, with or without this shortcut.
        """
        answers: list[RankedClient | PkgllmError] = []
        for start in range(0, len(queries), self.clients_at_once):
            part = slice(start, start + self.clients_at_once)
            answers += self._rank_at_once(queries[part], candidates[part], gold[part], top_k)
        return answers

    def _rank_at_once(
        self,
        queries: Sequence[ClientQueries],
        candidates: NDArray[np.bool_],
        gold: Sequence[NDArray[np.int64]],
        top_k: int,
    ) -> list[RankedClient | PkgllmError]:
        answers: dict[int, RankedClient | PkgllmError] = {}
        prompts: dict[int, list[int]] = {}
        for place, query in enumerate(queries):
            try:
                prompts[place] = self._prompt(query)
            except ModelError as error:
                answers[place] = error
        if prompts:
            places = list(prompts)
            with torch.inference_mode():
                search = self._search(
                    self._branches(), [queries[p] for p in places], list(prompts.values())
                )
                search.visit_what_matters(
                    candidates[places], [gold[p] for p in places], top_k=top_k
                )
            scores = search.scores
            for row, place in enumerate(places):
                answers[place] = search.errors.get(row) or RankedClient(
                    ranks=rank_gold(
                        scores[row], candidates[place], gold[place], tolerance=TIE_NATS
                    ),
                    top=best_columns(scores[row], candidates[place], top_k),
                    num_fed=int(search.num_fed[row]),
                )
        return [answers[place] for place in range(len(queries))]

    def _branches(self) -> Branches:
        return Branches(
            Decoder(self._model, with_adapter=self._with_adapter),
            capacity=self._plan.capacity,
            rows_at_once=self._plan.rows,
            memory=self._memory,
        )

    def _search(
        self,
        branches: Branches,
        queries: Sequence[ClientQueries],
        prompts: Sequence[Sequence[int]],
    ) -> TrieSearch:
        return TrieSearch(
            self._trie,
            TrieReader(branches, prompts, logits_at_once=self._plan.logits),
            where=[f"client {query.client!r}, model {self.name!r}" for query in queries],
            rows_at_once=self._plan.rows,
        )

    def _prompt(self, query: ClientQueries) -> list[int]:
        ids = list(self._prompt_ids(query.graph))
        longest = self._max_positions - self._trie.longest_input
        if not 1 <= len(ids) <= longest:
            raise ModelError(
                f"client {query.client!r}: the prompt must have 1 to {longest} tokens, so that the "
                f"longest title ({self._trie.longest_input} tokens) fits into the "
                f"{self._max_positions} positions of model {self.name!r}; got {len(ids)}; lower "
                "prompt.max_tokens"
            )
        return ids
