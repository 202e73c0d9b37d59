"""A language model as a scorer: the exact log-probability of every title of the catalogue."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

import numpy as np
import torch
from numpy.typing import NDArray
from peft import PeftModel
from torch import Tensor
from transformers import PreTrainedModel

from pkgllm.errors import ModelError
from pkgllm.evaluation.prompt_reader import PromptReader
from pkgllm.evaluation.ranks import best_columns, rank_gold
from pkgllm.evaluation.scorer import ClientQueries, RankedClient
from pkgllm.evaluation.trie import CatalogueTrie
from pkgllm.evaluation.trie_search import TIE_NATS, TrieSearch
from pkgllm.graph.personal_graph import PersonalGraph


class LanguageModelScorer:
    r"""Score a title by the log-probability of its tokens and terminator after the prompt.

    .. math:: s(t) = \sum_i \log p(t_i \mid \text{prompt}, t_1 \ldots t_{i-1})

    in nats, without any length normalisation. The prompt goes through the model once; its cached
    keys and values serve all chunks of the trie. The result equals one forward pass for each title
    up to rounding; log-probabilities are taken in float32 and added up in float64. Ranks are taken
    from the part of the trie that decides them.

    Args:
        name: The model's name in results.
        model: A causal language model with full attention, or one with an adapter by PEFT.
        prompt_ids: Token ids of a graph's prompt, up to the point where a title begins.
        trie: The catalogue, tokenised for this model.
        max_positions: Longest sequence the model was made for, tokens.
        context: Entered around all forward passes. ``policy.disable_adapter`` gives the base model
            that lies under a policy.

    Raises:
        ModelError: If the model has a layer without full attention, where a mask over the trie
            would not mean what it says.
    """

    def __init__(
        self,
        name: str,
        model: PreTrainedModel | PeftModel,
        prompt_ids: Callable[[PersonalGraph], Sequence[int]],
        trie: CatalogueTrie,
        *,
        max_positions: int,
        context: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> None:
        self.name = name
        self._model = _causal_model(model)
        self._prompt_ids = prompt_ids
        self._trie = trie
        self._max_positions = max_positions
        self._context = context
        layer_types = set(getattr(self._model.config, "layer_types", None) or ["full_attention"])
        if layer_types != {"full_attention"}:
            raise ModelError(
                f"model {name!r}: every layer must have full attention to rank a catalogue, got "
                f"{', '.join(sorted(layer_types))}; choose another base model"
            )

    def scores(self, queries: Sequence[ClientQueries]) -> NDArray[np.float64]:
        """Score the whole catalogue for each client.

        Returns:
            Log-probabilities in nats, shape ``(len(queries), len(catalogue))``.

        Raises:
            ModelError: If a client's prompt is empty, or leaves no room for the longest title, or
                a title's probability is no number.
        """
        everything = np.ones(len(self._trie.terminal_nodes), dtype=bool)
        found = np.empty((len(queries), len(everything)))
        with self._ready():
            for row, query in enumerate(queries):
                search = self._search(query)
                search.visit(everything)
                found[row] = search.scores
        return found

    def rank(
        self,
        query: ClientQueries,
        candidates: NDArray[np.bool_],
        gold: NDArray[np.int64],
        *,
        top_k: int,
    ) -> RankedClient:
        """Rank one client's held-out items exactly, from no more of the trie than that needs.

        Candidates whose scores differ by no more than :data:`TIE_NATS` count as tied, because what
        else goes through the model with a title changes how its score is rounded. In bfloat16 it
        changes more than that, with or without this shortcut.

        Raises:
            ModelError: As :meth:`scores` does.
        """
        with self._ready():
            search = self._search(query)
            search.visit_what_matters(candidates, gold, top_k=top_k)
        return RankedClient(
            ranks=rank_gold(search.scores, candidates, gold, tolerance=TIE_NATS),
            top=best_columns(search.scores, candidates, top_k),
            num_fed=search.num_fed,
        )

    @contextmanager
    def _ready(self) -> Iterator[None]:
        with torch.inference_mode(), _evaluation_mode(self._model), self._context():
            yield

    def _search(self, query: ClientQueries) -> TrieSearch:
        reader = PromptReader(self._model, self._prompt(query))
        return TrieSearch(self._trie, reader, where=f"client {query.client!r}, model {self.name!r}")

    def _prompt(self, query: ClientQueries) -> Tensor:
        ids = list(self._prompt_ids(query.graph))
        needed = len(ids) + self._trie.longest_input
        if not ids or needed > self._max_positions:
            raise ModelError(
                f"client {query.client!r}: the prompt must have 1 to "
                f"{self._max_positions - self._trie.longest_input} tokens, so that the longest "
                f"title ({self._trie.longest_input} tokens) fits into the {self._max_positions} "
                f"positions of model {self.name!r}; got {len(ids)}; lower prompt.max_tokens"
            )
        return torch.tensor([ids], device=self._model.device)


def _causal_model(model: PreTrainedModel | PeftModel) -> PreTrainedModel:
    """Return the causal language model; PEFT has put the adapter into its layers."""
    found = model.get_base_model() if isinstance(model, PeftModel) else model
    assert isinstance(found, PreTrainedModel)
    return found


@contextmanager
def _evaluation_mode(model: PreTrainedModel) -> Iterator[None]:
    # In training mode dropout is on, and gradient checkpointing refuses a cache.
    was_training = model.training
    model.train(False)
    try:
        yield
    finally:
        model.train(was_training)
