import pytest

from helpers.command_line import Refuse, RunCommand

PRIVACY = "privacy={name: client, delta: 1e-2, clip_norm: 0.5, noise_multiplier: 1}"
CALL = ("privacy", "audit", "-c", "small.yaml", "--set", PRIVACY, "--canaries", "200")


@pytest.mark.usefixtures("workplace")
def test_the_real_mechanism_ends_well(pkgllm: RunCommand) -> None:
    done = pkgllm(*CALL)
    assert done.code == 0, done.err
    assert "FAULT" not in done.out
    for words in ("Gaussian fit", "sensitivity", "variance of units", "at most"):
        assert words.split()[0] in done.out


@pytest.mark.usefixtures("workplace")
def test_a_bound_above_what_was_accounted_for_ends_with_one(pkgllm: RunCommand) -> None:
    # Everybody in every round, so that nothing hides the canaries but the noise.
    sentence = pkgllm(*CALL, "--set", "mode.cohort_size=99").sentence
    most = sentence.split("training clients, ")[1].split(",")[0]
    loud = ("--set", f"mode.cohort_size={most}", "--set", "privacy.delta=1e-6")
    done = pkgllm(*CALL, *loud, "--epsilon", "0.01")
    assert done.code == 1
    assert "FAULT" in done.out


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--canaries", "3"], 2, "--canaries must be at least 100"),
        (["--epsilon", "0"], 2, "--epsilon must be above 0"),
        (["--set", "privacy={name: none}"], 2, "privacy.name is none, so there is nothing to plan"),
        (["--set", "privacy.clip_norm=0"], 2, "privacy.clip_norm: must be a number above 0"),
    ],
)
def test_what_means_nothing_is_refused(
    refuse: Refuse, arguments: list[str], code: int, words: str
) -> None:
    assert words in refuse(*CALL, *arguments, code=code)


CANARIES = ("privacy", "canaries", "-c", "small.yaml", "-o", "runs/new", "--delta", "1e-3")


@pytest.mark.slow
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
    sentence = refuse(*CANARIES, "--put-in", counts, code=2)
    assert f"two positive whole numbers as in 25:50, got {counts!r}" in sentence


def test_a_delta_that_means_nothing_is_refused(refuse: Refuse) -> None:
    assert "--delta must be above 0" in refuse(*CANARIES[:-1], "0", code=2)
