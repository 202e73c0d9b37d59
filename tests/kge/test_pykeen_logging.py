import os
import subprocess
import sys
from pathlib import Path

import pytest

IMPORT_AND_BUILD = """
import socket, sys

def refuse(*args, **kwargs):
    raise AssertionError(f"phones out: {args}")

socket.socket.connect = socket.getaddrinfo = refuse
import pkgllm.baselines
assert "pykeen" not in sys.modules
import numpy as np
from pkgllm.kge.embeddings.node_piece import NodePiece
from pkgllm.kge.integer_triples import IntegerTriples
triples = IntegerTriples(np.array([[0, 0, 1]]), num_entities=2, num_relations=1)
NodePiece(dim=4).untrained(triples, 0)
"""


@pytest.mark.slow
def test_pykeen_leaves_nothing_in_the_home_nor_behind_and_says_nothing(tmp_path: Path) -> None:
    home, temporary = tmp_path / "home", tmp_path / "temporary"
    home.mkdir()
    temporary.mkdir()
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYSTOW")}
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_AND_BUILD],
        env={**kept, "HOME": str(home), "TMPDIR": str(temporary)},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert list(home.iterdir()) == []
    assert list(temporary.iterdir()) == []
