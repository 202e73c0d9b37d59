from pathlib import Path

import pytest

from pkgllm.baselines import ScorerChoice
from pkgllm.baselines.ease import Ease
from pkgllm.baselines.item_knn import ItemKnn
from pkgllm.baselines.popularity import Popularity
from pkgllm.baselines.random import Random
from pkgllm.config.load import dump_config, load_config
from pkgllm.errors import ConfigError

ALL = "popularity, genre_popularity, item_knn, ease"


def scorers(*overrides: str) -> tuple[ScorerChoice, ...]:
    texts = [f"evaluation.baselines{text}" for text in overrides]
    return load_config("quickstart.yaml", texts).evaluation.baselines


TUNED = (Popularity(), ItemKnn(neighbours=50, shrinkage=1), Ease(l2=100))


@pytest.mark.parametrize(
    ("overrides", "listed"),
    [
        ([], TUNED),
        (["=[popularity, {name: item_knn, neighbours: 5}]"], (TUNED[0], ItemKnn(neighbours=5))),
        (["=[ease, ease]"], (Ease(),)),
        (["={names: [ease, random], l2: 7, neighbours: 3}"], (Ease(l2=7), Random())),
        (["={l2: 7}"], (Popularity(), ItemKnn(), Ease(l2=7))),
        ([".names=[]"], ()),
        ([".names=[ease]", ".l2=3"], (Ease(l2=3),)),
        ([".neighbours=3", ".names=[item_knn]"], (ItemKnn(neighbours=3, shrinkage=1),)),
        # The same keys where the file, as that of a finished run, holds a list.
        (["=[{name: ease, l2: 7}, popularity]", ".l2=3"], (Ease(l2=3), Popularity())),
        (["=[{name: ease, l2: 7}]", ".names=[random, ease]"], (Random(), Ease(l2=7))),
        (["=[ease, popularity]", ".ease.l2=3"], (Ease(l2=3), Popularity())),
    ],
)
def test_a_list_and_its_shorthand_mean_the_same(
    overrides: list[str], listed: tuple[ScorerChoice, ...]
) -> None:
    assert scorers(*overrides) == listed


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["=[populrity]"], "(did you mean popularity?)"),
        ([".names=[x]"], f".names: must be a list of one of {ALL}"),
        (["=[{name: item_knn, neighbours: 0}]"], "item_knn.neighbours: must be a whole number of"),
        (["=[ease]", ".ease.l2=0"], "baselines.ease.l2: must be a number above 0, got 0"),
        ([".neighbours=0"], "baselines.neighbours: must be a whole number of at least 1, got 0"),
        (["={l2: .inf}"], "baselines.l2: must be finite, got Infinity"),
        ([".neighbour=3"], "unknown key, got 3 (did you mean neighbours?)"),
        (["=[{name: ease, neighbours: 3}]"], "it belongs to item_knn, not to ease"),
        (["=[{l2: 3}]"], f"missing, must be one of {ALL}"),
        (["=[3]"], f"must be a list of {ALL}"),
        (["=3"], "each by name or with its keys and values, got 3"),
        (["=[ease, {name: ease, l2: 3}]"], "ease must be listed once, got it with different"),
        (["=[ease]", ".neighbours=3"], "no choice in the list has a key neighbours"),
        (["=[ease]", ".random.x=3"], "no choice in the list has a key random.x"),
    ],
)
def test_what_is_wrong_in_a_list_is_named(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        scorers(*overrides)
    assert str(refused.value).startswith("--set evaluation.baselines")
    assert message in str(refused.value)


def test_a_list_is_written_as_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    config = load_config("quickstart.yaml", ["evaluation.baselines=[random, {name: ease, l2: 3}]"])
    path.write_text(dump_config(config))
    assert "- name: ease\n    l2: 3.0\n" in path.read_text()
    assert load_config(str(path)) == config
