import pytest

from command_line import Refuse, RunCommand

CALL = (
    *("privacy", "audit", "--unit", "example", "--noise-multiplier", "1"),
    *("--delta", "1e-5", "--sampling-probability", "0.5", "--releases", "10"),
    *("--canaries", "200"),
)


def test_the_real_mechanism_ends_well(pkgllm: RunCommand) -> None:
    done = pkgllm(*CALL, "--epsilon", "14")
    assert done.code == 0, done.err
    assert "FAULT" not in done.out
    for words in ("Gaussian fit", "correlation between clients", "at most 14.000"):
        assert words.split()[0] in done.out


def test_a_bound_above_what_was_accounted_for_ends_with_one(pkgllm: RunCommand) -> None:
    done = pkgllm(*CALL, "--epsilon", "0.01")
    assert done.code == 1
    assert "FAULT" in done.out


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--noise-multiplier", "0", "the noise multiplier must be above 0, got 0"),
        ("--delta", "0", "delta must be above 0 and below 1, got 0"),
        ("--delta", "1", "delta must be above 0 and below 1, got 1"),
        ("--clip-norm", "0", "clip_norm must be positive, got 0.0"),
        ("--sampling-probability", "2", "at most 1, got 2"),
        ("--canaries", "3", "--canaries must be at least 100"),
        ("--unit", "fact", "'fact' is not one of 'example', 'client'"),
    ],
)
def test_what_means_nothing_is_refused(refuse: Refuse, option: str, value: str, words: str) -> None:
    assert words in refuse(*CALL, "--epsilon", "1", option, value, code=2)


CANARIES = ("privacy", "canaries", "-c", "small.yaml", "-o", "runs/new", "--delta", "1e-3")


@pytest.mark.usefixtures("workplace")
def test_canaries_are_trained_on_and_measured(pkgllm: RunCommand) -> None:
    done = pkgllm(*CANARIES, "--put-in", "1:12", "--put-in", "5:12")
    assert done.code == 0, done.err
    assert [line.split()[:3] for line in done.out.splitlines() if " x " in line] == [
        ["1", "x", "12"],
        ["5", "x", "12"],
    ]


@pytest.mark.parametrize("counts", ["5", "0:3", "3:0", "a:b", "1:-2"])
def test_counts_that_mean_nothing_are_refused(refuse: Refuse, counts: str) -> None:
    found = refuse(*CANARIES, "--put-in", counts, code=2)
    assert f"two positive whole numbers as in 25:50, got {counts!r}" in found


def test_a_delta_that_means_nothing_is_refused(refuse: Refuse) -> None:
    assert "--delta must be above 0" in refuse(*CANARIES[:-1], "0", code=2)
