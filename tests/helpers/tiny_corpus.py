"""Twelve people, forty films and a configuration of a run that takes a second."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pkgllm.config.schema import Experiment

_FIRST = ("Quiet", "Golden", "Broken", "Distant", "Hollow", "Silver", "Velvet", "Winter")
_LAST = ("River", "Harbour", "Letter", "Machine", "Orchard")

# Long ids, so that none stands in an array of numbers by chance.
FILMS = {
    f"7355{n:05}": f"{first} {last} ({1950 + n})"
    for n, (first, last) in enumerate((first, last) for first in _FIRST for last in _LAST)
}
CLIENTS = tuple(f"{n:02}" for n in range(12))


def write_corpus(
    root: Path,
    make_dialogue: Callable[..., dict[str, Any]],
    write_redial: Callable[..., Path],
    *,
    seed: int = 0,
    clients: Sequence[str] = CLIENTS,
) -> Path:
    """Write five dialogues for each client: two films liked in each, then one more disliked."""
    generator = np.random.default_rng(seed)
    dialogues = []
    for client in clients:
        films = [str(film) for film in generator.permutation(list(FILMS))]
        for half in range(5):
            said = dict.fromkeys(films[3 * half : 3 * half + 2], "liked")
            other = {films[3 * half + 2]: "disliked" if half % 2 else "seen"}
            verdicts = other | said
            number = 10 * int(client) + half
            names = {film: FILMS[film] for film in verdicts}
            dialogues.append(make_dialogue(number, client, verdicts, names=names))
    return write_redial(root, dialogues, FILMS)


def tiny_experiment(data: Path, base: Path, **sections: Any) -> Experiment:
    """A whole configuration; a section that is given is merged into the one here."""
    tree: dict[str, Any] = {
        "seed": 7,
        "corpus": {"name": "redial", "folder": str(data)},
        "clients": {"unseen_share": 0.2},
        "base_model": {"name": str(base), "device": "cpu"},
        "adapter": {"lora_rank": 2, "lora_alpha": 8.0},
        "prompt": {"max_tokens": 400},
        "groups": {
            "hidden_facts": 2,
            "stride": 2,
            "max_groups": 3,
            "negatives": {"known": 1, "uniform": 2},
        },
        "objective": {"name": "kto", "nll_weight": 0.5},
        "training": {"learning_rate": 0.02, "local_steps": 1, "groups_per_step": 2},
        "mode": {"name": "federated", "rounds": 2, "cohort_size": 2},
        "evaluation": {"bootstrap_resamples": 100},
    }
    for name, section in sections.items():
        # A choice is replaced whole, since the choices have different keys.
        whole = not isinstance(section, dict) or "name" in section
        tree[name] = section if whole else {**tree.get(name, {}), **section}
    return Experiment.model_validate(tree)
