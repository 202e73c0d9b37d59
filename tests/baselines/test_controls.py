import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pkgllm.baselines.constant import Constant
from pkgllm.baselines.likes import TrainingLikes
from pkgllm.baselines.prompt_copy import PromptCopy
from pkgllm.baselines.random import Random
from pkgllm.corpora.catalogue import Catalogue, Item
from pkgllm.evaluation.protocol import evaluate
from pkgllm.evaluation.ranks import rank_gold
from pkgllm.evaluation.scorer import ClientQueries, Scorer
from pkgllm.graph.personal_graph import Fact, Moment, PersonalGraph, Provenance

LETTERS = "abcdefgh"
CATALOGUE = Catalogue([Item(letter, letter.upper()) for letter in LETTERS])
LIKES = TrainingLikes(CATALOGUE, [])
SAID = Provenance("own_answer", "conversation/1")


def liking(*conversations: str, client: str = "p") -> PersonalGraph:
    """Each conversation's items at one moment, one conversation after the other."""
    return PersonalGraph(
        client,
        tuple(
            Fact("liked", item, item.upper(), Moment(session, 0), SAID)
            for session, items in enumerate(conversations)
            for item in items
        ),
    )


def realistic(scorer: Scorer, *queries: ClientQueries) -> list[list[float]]:
    found = evaluate([scorer], queries, CATALOGUE, resamples=1, seed=0)
    return [client.ranks.realistic.tolist() for client in found.ranked[scorer.name]]


def test_random_scores_belong_to_seed_and_client() -> None:
    first, second = (
        ClientQueries(client, True, liking(client=client), ("a",)) for client in ("p", "q")
    )
    scorer = Random().fit(LIKES, seed=3)
    together = scorer.scores([first, second])
    assert together.shape == (2, 8)
    assert np.array_equal(scorer.scores([second, first]), together[::-1])
    assert np.array_equal(scorer.scores([second]), together[1:])
    assert not np.array_equal(together[0], together[1])
    assert not np.array_equal(Random().fit(LIKES, seed=4).scores([first]), together[:1])


def test_random_scores_favour_no_item() -> None:
    queries = [ClientQueries(f"p{n}", True, liking(client=f"p{n}"), ("a",)) for n in range(2000)]
    scores = Random().fit(LIKES).scores(queries)
    assert ((scores >= 0) & (scores < 1)).all()
    # A uniform draw has variance 1/12.
    assert np.abs(scores.mean(axis=0) - 0.5).max() < 4 * np.sqrt(1 / 12 / len(queries))


def test_random_mrr_is_what_chance_gives() -> None:
    num_items, num_clients = 50, 2000
    catalogue = Catalogue([Item(f"{n:02}", f"Film {n}") for n in range(num_items)])
    queries = [
        ClientQueries(f"p{n}", True, PersonalGraph(f"p{n}", ()), (f"{n % num_items:02}",))
        for n in range(num_clients)
    ]
    found = evaluate(
        [Random().fit(TrainingLikes(catalogue, []))], queries, catalogue, resamples=1, seed=0
    )
    ranks = np.concatenate([client.ranks.realistic for client in found.ranked["random"]])
    reciprocals = 1 / np.arange(1, num_items + 1)
    chance = reciprocals.mean()
    adjusted = ((1 / ranks).mean() - chance) / (1 - chance)
    # One query for each client, so all ranks are independent.
    error = reciprocals.std() / np.sqrt(num_clients) / (1 - chance)
    assert abs(adjusted) < 4 * error
    spread = np.sqrt(0.2 * 0.8 / num_clients)
    assert abs((ranks <= 10).mean() - 10 / num_items) < 4 * spread


@given(
    visible=st.sets(st.sampled_from(LETTERS[:4])),
    held_out=st.sets(st.sampled_from(LETTERS[4:]), min_size=1),
)
def test_a_constant_score_gives_the_middle_rank(visible: set[str], held_out: set[str]) -> None:
    query = ClientQueries("p", True, liking("".join(visible)), tuple(sorted(held_out)))
    # The other held-out items are filtered.
    num_candidates = len(LETTERS) - len(visible) - len(held_out) + 1
    assert realistic(Constant().fit(LIKES), query) == [[(num_candidates + 1) / 2] * len(held_out)]


def test_prompt_copy_repeats_the_newest_likes_first() -> None:
    disliked = Fact("disliked", "h", "H", Moment(9, 0), SAID)
    elsewhere = Fact("liked", "not in the catalogue", "X", Moment(8, 0), SAID)
    graph = liking("c", "fa", "b")
    query = ClientQueries("p", True, graph.only([*graph.facts, disliked, elsewhere]), ("g",))
    # f and a were liked at one moment, so neither is newer.
    assert dict(zip(LETTERS, PromptCopy().fit(LIKES).scores([query])[0], strict=True)) == {
        "b": 3.0,
        "a": 2.0,
        "f": 2.0,
        "c": 1.0,
        **dict.fromkeys("degh", 0.0),
    }


@given(
    visible=st.lists(st.sampled_from(LETTERS[:5]), unique=True),
    held_out=st.sets(st.sampled_from(LETTERS[5:]), min_size=1),
)
def test_prompt_copy_is_no_better_than_a_constant(visible: list[str], held_out: set[str]) -> None:
    query = ClientQueries("p", True, liking(*visible), tuple(sorted(held_out)))
    constant = realistic(Constant().fit(LIKES), query)
    assert realistic(PromptCopy().fit(LIKES), query) == constant


@pytest.mark.parametrize("leaked", ["c", "h"])
def test_prompt_copy_finds_an_answer_that_stands_in_the_graph(leaked: str) -> None:
    # Past the protocol, which refuses such a query: this is what a leak would look like.
    query = ClientQueries("p", True, liking("ab", "d", leaked), (leaked,))
    everything = np.ones(len(CATALOGUE), dtype=bool)
    gold = np.array([CATALOGUE.index_by_id[leaked]])
    scores = PromptCopy().fit(LIKES).scores([query])[0]
    assert rank_gold(scores, everything, gold).realistic.tolist() == [1]
