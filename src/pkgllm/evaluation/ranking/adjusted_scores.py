"""Named scores of a language model beside the sum: they need every title's log-probability.

None of them falls along a title's tokens, so no part of the catalogue can be left out. Which one is
used is to be chosen on validation.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pkgllm.evaluation.ranking.language_model import LanguageModelScorer
from pkgllm.evaluation.scorer import ClientQueries, Scorer
from pkgllm.graph.personal_graph import PersonalGraph

ScoreName = Literal["sum", "mean", "pmi", "policy_reference_ratio"]


def adjusted(
    policy: LanguageModelScorer,
    reference: LanguageModelScorer,
    score: ScoreName,
    *,
    num_tokens: NDArray[np.int64],
) -> tuple[Scorer, Scorer]:
    """Return the tuned and the base model with a score."""
    match score:
        case "sum":
            return policy, reference
        case "mean":
            return MeanScorer(policy, num_tokens), MeanScorer(reference, num_tokens)
        case "pmi":
            return PmiScorer(policy), PmiScorer(reference)
        case "policy_reference_ratio":
            return RatioScorer(policy, reference), reference


class MeanScorer:
    r"""Score a title by its mean log-probability per token, :math:`s(t) / |t|`, nats per token.

    The terminator counts as a token. It lifts long titles whose ends are certain once begun
    (Bao et al. 2024, arXiv:2406.14900).

    Args:
        scorer: Gives the sums.
        num_tokens: Tokens of each column's title and terminator, shape ``(catalogue,)``.
    """

    def __init__(self, scorer: LanguageModelScorer, num_tokens: NDArray[np.int64]) -> None:
        self.name = scorer.name
        self._scorer = scorer
        self._num_tokens = num_tokens

    def scores(self, queries: Sequence[ClientQueries]) -> NDArray[np.float64]:
        """Return nats per token, shape ``(len(queries), len(catalogue))``."""
        per_token: NDArray[np.float64] = self._scorer.scores(queries) / self._num_tokens
        return per_token


class PmiScorer:
    r"""Score a title by what the person's facts add to it.

    .. math:: \log p(t \mid \text{prompt}) - \log p(t \mid \text{prompt without facts})

    in nats: the pointwise mutual information of title and facts. It takes out what the model
    expects of anybody, popularity above all.
    """

    def __init__(self, scorer: LanguageModelScorer) -> None:
        self.name = scorer.name
        self._scorer = scorer

    def scores(self, queries: Sequence[ClientQueries]) -> NDArray[np.float64]:
        """Return nats, shape ``(len(queries), len(catalogue))``."""
        nobody = ClientQueries("nobody", False, PersonalGraph("nobody", ()), ())
        scores = self._scorer.scores([nobody, *queries])
        added: NDArray[np.float64] = scores[1:] - scores[0]
        return added


class RatioScorer:
    r"""Score a title by how much likelier tuning made it, the quantity that KTO and DPO train.

    .. math:: \log \pi(t \mid \text{prompt}) - \log \pi_\text{ref}(t \mid \text{prompt})

    in nats (Rafailov et al. 2023, arXiv:2305.18290, eq. 5, without its factor).
    """

    def __init__(self, policy: LanguageModelScorer, reference: LanguageModelScorer) -> None:
        self.name = policy.name
        self._policy = policy
        self._reference = reference

    def scores(self, queries: Sequence[ClientQueries]) -> NDArray[np.float64]:
        """Return nats, shape ``(len(queries), len(catalogue))``."""
        return self._policy.scores(queries) - self._reference.scores(queries)
