from pathlib import Path

import pytest
from test_embedding_sections import HAKE, loaded, refused

from pkgllm.kge.settings import EmbeddingFederation, PooledGraph

MODE = {"name": "federated", "exchange": "fede", "cohort_size": 4}


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_federation_is_read_with_its_defaults() -> None:
    mode = loaded({**HAKE, "mode": MODE}).mode
    assert mode == EmbeddingFederation(
        exchange="fede", cohort_size=4, local_epochs=1, public_facts=None
    )
    assert loaded(HAKE).mode == PooledGraph()


def test_what_a_federation_cannot_be_is_refused() -> None:
    (wrong,) = refused({**HAKE, "mode": {**MODE, "exchange": "fedx"}})
    assert wrong.startswith("x.yaml: mode.exchange: must be one of isolation, fede, fedr, fedavg")
    tree = {**HAKE, "embedding": {"name": "comp_gcn"}, "mode": MODE}
    assert "which comp_gcn has not; choose hake" in refused(tree)[0]
    found = refused({**HAKE, "mode": MODE}, "training.checkpoint_every=2")
    assert "training.checkpoint_every must be 1 with mode federated" in found[0]
    assert "mode.rounds" in refused({**HAKE, "mode": {**MODE, "rounds": 3}})[0]
