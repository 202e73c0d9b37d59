from helpers.run_stories import story, told
from pkgllm.report.run_tables import markdown_report


def rows(text: str) -> dict[str, list[str]]:
    """The cells of every row of every table, by its first cell."""
    found = (line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| "))
    return {first.strip(): [cell.strip() for cell in rest] for first, *rest in found}


def test_rounds_by_hand() -> None:
    rounds = (
        told(1, loss=0.75, seconds=2.5, kl_baseline=0.0),
        told(2, loss=0.5, seconds=3.0, kl_baseline=1.5),
        told(3, loss=0.625, seconds=4.5, kl_baseline=1.25, validation_seconds=1.0),
    )
    text = markdown_report(story(rounds=rounds, planned=5), {})
    assert "**3 of 5 rounds**" in text
    found = rows(text)
    assert found["measure"] == ["first", "last", "best", "total"]
    assert found["loss"][:3] == [".7500", ".6250", ".5000 (round 2)"]
    assert found["KL baseline that was sent, nats"][:2] == [".0000", "1.2500"]
    # 1 / 1 and 1 / 3; clients twice as far; 1500 and 2 million bytes in each of three rounds.
    assert found["length of the server's step"][:2] == ["1.0000", ".3333"]
    assert found["length of updates, mean of the cohort"][:2] == ["2.0000", ".6667"]
    assert found["cosine to the mean update, mean"][:2] == [".5000", ".5000"]
    assert found["smallest in the cohort"][:2] == [".3750", ".3750"]
    assert found["sent to clients"] == ["1.5 kB", "1.5 kB", "", "4.5 kB"]
    assert found["sent by clients"] == ["2.0 MB", "2.0 MB", "", "6.0 MB"]
    assert found["time of the round"] == ["2.5 s", "4.5 s", "", "10.0 s"]
    assert found["time of validation"] == ["1.0 s", "1.0 s", "", "1.0 s"]
    assert "of it training" not in found


def test_a_run_without_losses_says_why() -> None:
    why = "losses are private, and leave the clients only with privacy.report_private_metrics"
    private = markdown_report(story(rounds=(told(1),)), {})
    assert why in private
    assert "loss" not in rows(private)
    assert "KL baseline that was sent, nats" not in rows(private)
    assert why not in markdown_report(story(), {})


def test_failures_are_named_as_far_as_there_is_room() -> None:
    rounds = tuple(
        told(n, failed={"a": f"client a raised Error{n}"}, cohort=["a", "b"]) for n in range(1, 24)
    )
    text = markdown_report(story(rounds=rounds), {})
    assert "- Updates left out: 23 of 46.\n- Round 1: client a: client a raised Error1\n" in text
    assert "- Round 20: " in text
    assert "- Round 21: " not in text
    assert "- And 3 more, all in metrics.jsonl." in text
    assert "- No update was left out." in markdown_report(story(), {})


def test_validations_by_hand() -> None:
    found = rows(markdown_report(story(), {}))
    assert found["2"] == [".2000", ".0250 (best)"]
    assert found["4"] == [".4000 (best)", ".0125"]
    assert "By round: 3 clients, 8 queries" in markdown_report(story(), {})


def test_local_training_by_hand() -> None:
    text = markdown_report(story(mode="local", rounds=(), losses=(0.5, 0.125, 0.25)), {})
    # The mean of .5, .125 and .25 is .875 by three.
    assert rows(text)["last loss"] == [".2917", ".1250", ".2500", ".5000"]
    assert "**3 clients trained alone, 4 rounds each**" in text


def test_plots_and_what_is_missing_are_told() -> None:
    text = markdown_report(story(missing=("Rounds: 1 of 4.",)), {"Loss by round": "training.png"})
    assert text.startswith("# first: kto, federated, base-tiny\n\nNot all is there:\n\n- Rounds: ")
    assert text.endswith("## Plots\n\n![Loss by round](training.png)\n")
    assert "\n\n\n" not in text
    assert "Not all is there" not in markdown_report(story(), {})
