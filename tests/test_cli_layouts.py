"""Layouts from the command line: good ones train, bad ones end in one sentence."""

import json
from pathlib import Path

import pytest

from helpers.command_line import TRAIN, Refuse, RunCommand

LAYOUTS = [
    "{name: by_client}",
    "{name: redistributed}",
    "{name: paired}",
    "{name: dirichlet, concentration: 0.3}",
    "{name: one_sided}",
]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_trains_and_is_told(pkgllm: RunCommand, workplace: Path, layout: str) -> None:
    done = pkgllm(*TRAIN, "--set", f"layout={layout}")
    assert done.code == 0, done.err
    name = layout.strip("{}").removeprefix("name: ").split(",")[0]
    told = json.loads((workplace / "runs/new/layout.json").read_text())
    assert told["name"] == name
    said = " ".join(done.out.split())
    assert (f"Layout: {name}" in said) == (name != "by_client")
    assert ("Not private: examples of one person" in said) == (name == "redistributed")


@pytest.mark.parametrize(
    ("changes", "pieces"),
    [
        (
            ("layout={name: one_sided}", "objective={name: dpo}"),
            ("layout one_sided needs an objective without pairs", "use objective kto or apo_zero"),
        ),
        (
            ("layout={name: redistributed}", "objective={name: sdpo}"),
            ("every group holds a single example", "use objective kto or apo_zero"),
        ),
        (
            ("layout={name: one_sided}", "objective={name: sft}"),
            ("layout one_sided needs an objective that learns from undesirable", "not sft"),
        ),
        (
            ("layout={name: redistributed}", "mode={name: local, rounds: 1}"),
            ("layout redistributed needs clients that train together", "mode federated"),
        ),
        (("layout={name: paird}",), ("layout.name", "did you mean paired?")),
        (
            ("layout={name: dirichlet, concentration: 0}",),
            ("layout.concentration: must be", "of at least 0.001", "got 0"),
        ),
        (
            ("layout={name: one_sided, one_sided_share: 1.5}",),
            ("layout.one_sided_share: must be", "of at most 1", "got 1.5"),
        ),
        (("layout={name: paired, concentration: 1}",), ("layout.concentration: unknown key",)),
        (("layout=paired",), ("layout: must be a section", 'got "paired"')),
    ],
)
@pytest.mark.parametrize("command", [("config", "check", "small.yaml"), TRAIN])
def test_a_layout_that_cannot_be(
    refuse: Refuse, command: tuple[str, ...], changes: tuple[str, ...], pieces: tuple[str, ...]
) -> None:
    sentence = refuse(*command, *(f"--set={change}" for change in changes), code=2)
    assert all(piece in sentence for piece in pieces), sentence
