"""What runs promise, read back from what they wrote."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pkgllm.errors import PrivacyError
from pkgllm.privacy.mechanisms import NeighboringRelation
from pkgllm.privacy.statements import Guarantee
from pkgllm.runs.folder import RunFolder

GUARANTEE = "privacy.json"
"""What the run promises, written when training is done."""


def read_guarantee(run: Path) -> Guarantee | None:
    """Return what a finished run promises; None where it has no privacy unit.

    Raises:
        PrivacyError: If the file does not hold a guarantee.
    """
    path = run / GUARANTEE
    if not path.exists():
        return None
    return _guarantee(path, lambda told: told)


def ranked_guarantee(folder: Path) -> Guarantee | None:
    """Return what a run promises, as its ranking, or an evaluation made later, wrote it down.

    None where there is no privacy unit, or no ranking is finished.

    Raises:
        PrivacyError: If the file does not hold a guarantee.
    """
    path = RunFolder(folder).results
    if not path.exists():
        return None
    return _guarantee(path, lambda told: told.get("privacy"))


def _guarantee(path: Path, find: Callable[[Any], Any]) -> Guarantee | None:
    try:
        told = find(json.loads(path.read_text(encoding="utf-8")))
        if told is None:
            return None
        if told["epsilon"] is None:
            told["epsilon"] = math.inf
        if told.get("min_shares") is not None and told["share_epsilon"] is None:
            told["share_epsilon"] = math.inf
        relation = NeighboringRelation(told.pop("neighboring_relation"))
        return Guarantee(**told, neighboring_relation=relation)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise PrivacyError(
            f"{path}: must hold what the run promises, as training writes it: {error}; restore it"
        ) from error
