import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from pkgllm.baselines.ease import Ease
from pkgllm.baselines.likes import TrainingLikes
from pkgllm.config.load import load_config
from pkgllm.evaluation.protocol import evaluate
from pkgllm.evaluation.scorer import ClientQueries
from pkgllm.pipeline.build import populate, read_corpus

SCRIPT = Path(__file__).parents[2] / "scripts" / "tune_baselines.py"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script with a small grid."""
    spec = importlib.util.spec_from_file_location("tune_baselines", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    grids = (
        {"neighbours": (5, 50), "shrinkage": (0.0,)},
        {"l2": (1.0, 100.0, 10_000.0)},
        {"l1": (1.0,), "l2": (10.0,)},
    )
    monkeypatch.setattr(module, "GRIDS", dict(zip(module.GRIDS, grids, strict=True)))
    return module


@pytest.mark.slow
def test_every_setting_is_ranked_on_validation_only(
    script: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    assert script.main(["--config", "quickstart.yaml"]) == 0
    head, _, _, _, *rows = capsys.readouterr().out.splitlines()
    assert [row.split(" | ")[:2] for row in rows[:7]] == [
        ["| popularity", ""],
        ["| item_knn", "neighbours 5, shrinkage 0"],
        ["| item_knn", "neighbours 50, shrinkage 0"],
        ["| ease", "l2 1"],
        ["| ease", "l2 100"],
        ["| ease", "l2 10000"],
        ["| slim", "l1 1, l2 10"],
    ]
    config = load_config("quickstart.yaml")
    population = populate(config, read_corpus(config))
    catalogue = population.corpus.catalogue
    asked = [split for split in population.splits if split.validation]
    queries = [
        ClientQueries(
            split.client,
            split.seen_in_training,
            split.train_graph,
            tuple(fact.tail for fact in split.validation),
        )
        for split in asked
    ]
    num_queries = sum(len(split.validation) for split in asked)
    assert head == f"small world, validation: {len(asked)} clients, {num_queries} queries"
    likes = TrainingLikes(
        catalogue,
        [
            [fact.tail for fact in split.train_graph.facts if fact.relation == "liked"]
            for split in population.splits
            if split.seen_in_training
        ],
    )
    found = evaluate([Ease(l2=100.0).fit(likes)], queries, catalogue, resamples=1, seed=0)
    ranks = np.concatenate([client.ranks.realistic for client in found.ranked["ease"]])
    hits, mrr = (ranks <= 10).mean(), (1 / ranks).mean()
    assert rows[4] == f"| ease | l2 100 | {hits:.4f} | {mrr:.4f} |"
    # The highest MRR of this grid stands in the middle of it.
    assert rows[-2] == f"ease: l2 100 has the highest MRR, {mrr:.4f}"
    assert rows[-3].startswith("item_knn: neighbours 50, shrinkage 0 has the highest MRR")


def test_what_cannot_be_read_is_said(
    script: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    assert script.main(["--config", "nowhere.yaml"]) == 2
    assert "tune_baselines: no configuration nowhere.yaml" in capsys.readouterr().err
