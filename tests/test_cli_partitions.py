"""Partitions from the command line: good ones train, bad ones end in one sentence."""

import json
from pathlib import Path

import pytest

from helpers.command_line import TRAIN, Refuse, RunCommand

PARTITIONS = [
    "{name: by_client}",
    "{name: redistributed}",
    "{name: paired}",
    "{name: dirichlet, concentration: 0.3}",
    "{name: one_sided}",
]


@pytest.mark.slow
@pytest.mark.parametrize("partition", PARTITIONS)
def test_a_partition_trains_and_is_told(
    pkgllm: RunCommand, workplace: Path, partition: str
) -> None:
    done = pkgllm(*TRAIN, "--set", f"partition={partition}")
    assert done.code == 0, done.err
    name = partition.strip("{}").removeprefix("name: ").split(",")[0]
    summary = json.loads((workplace / "runs/new/partition.json").read_text())
    assert summary["name"] == name
    said = " ".join(done.out.split())
    assert (f"Partition: {name}" in said) == (name != "by_client")
    assert ("Not private: examples of one person" in said) == (name == "redistributed")


@pytest.mark.parametrize(
    ("changes", "pieces"),
    [
        (
            ("partition={name: one_sided}", "objective={name: dpo}"),
            (
                "partition one_sided needs an objective without pairs",
                "use objective kto or apo_zero",
            ),
        ),
        (
            ("partition={name: redistributed}", "objective={name: sdpo}"),
            ("every group holds a single example", "use objective kto or apo_zero"),
        ),
        (
            ("partition={name: one_sided}", "objective={name: sft}"),
            ("partition one_sided needs an objective that learns from undesirable", "not sft"),
        ),
        (
            ("partition={name: redistributed}", "mode={name: local, rounds: 1}"),
            ("partition redistributed needs clients that train together", "mode federated"),
        ),
        (("partition={name: paird}",), ("partition.name", "did you mean paired?")),
        (
            ("partition={name: dirichlet, concentration: 0}",),
            ("partition.concentration: must be", "of at least 0.001", "got 0"),
        ),
        (
            ("partition={name: one_sided, one_sided_share: 1.5}",),
            ("partition.one_sided_share: must be", "of at most 1", "got 1.5"),
        ),
        (
            ("partition={name: paired, concentration: 1}",),
            ("partition.concentration: unknown key",),
        ),
        (("partition=paired",), ("partition: must be a section", 'got "paired"')),
    ],
)
@pytest.mark.parametrize("command", [("config", "check", "small.yaml"), TRAIN])
def test_a_partition_that_cannot_be(
    refuse: Refuse, command: tuple[str, ...], changes: tuple[str, ...], pieces: tuple[str, ...]
) -> None:
    sentence = refuse(*command, *(f"--set={change}" for change in changes), code=2)
    assert all(piece in sentence for piece in pieces), sentence
