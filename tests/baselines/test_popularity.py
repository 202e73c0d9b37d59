from pkgllm.baselines.likes import TrainingLikes
from pkgllm.baselines.popularity import Popularity
from pkgllm.corpora.catalogue import Catalogue, Item
from pkgllm.evaluation.protocol import evaluate
from pkgllm.evaluation.scorer import ClientQueries
from pkgllm.graph.personal_graph import PersonalGraph

CATALOGUE = Catalogue([Item(letter, letter.upper()) for letter in "abcd"])
LIKES = TrainingLikes(CATALOGUE, [["c", "a"], ["c"]])


def asked(client: str, *held_out: str) -> ClientQueries:
    return ClientQueries(client, False, PersonalGraph(client, ()), held_out)


def test_scores_are_counts_of_likes_the_same_for_everyone() -> None:
    scores = Popularity().fit(LIKES).scores([asked("p", "a"), asked("q", "d")])
    assert scores.tolist() == [[1.0, 0.0, 2.0, 0.0]] * 2
    assert Popularity().fit(LIKES).scores([]).shape == (0, 4)


def test_items_that_nobody_likes_tie_and_share_the_middle_rank() -> None:
    found = evaluate([Popularity().fit(LIKES)], [asked("p", "d")], CATALOGUE, resamples=100, seed=0)
    # c (2) and a (1) stand before b and d (0 each): ranks 3 to 4.
    assert found.ranked["popularity"][0].ranks.realistic.tolist() == [3.5]
    assert found.results()["ties"] == {"popularity": 1.0}
