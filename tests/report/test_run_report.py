from collections.abc import Mapping

from helpers.run_summaries import round_record, summary
from pkgllm.report.run_report import RunSummary, run_document
from pkgllm.report.to_markdown import markdown


def report(run: RunSummary, plots: Mapping[str, str] | None = None) -> str:
    return markdown(run_document(run, plots or {}), level=1)


def rows(text: str) -> dict[str, list[str]]:
    """The cells of every row of every table, by its first cell."""
    lines = (line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| "))
    return {first.strip(): [cell.strip() for cell in rest] for first, *rest in lines}


def test_rounds_by_hand() -> None:
    rounds = (
        round_record(1, loss=0.75, seconds=2.5, kl_baseline=0.0),
        round_record(2, loss=0.5, seconds=3.0, kl_baseline=1.5),
        round_record(3, loss=0.625, seconds=4.5, kl_baseline=1.25, validation_seconds=1.0),
    )
    text = report(summary(rounds=rounds, planned=5))
    assert "**3 of 5 rounds**" in text
    cells = rows(text)
    assert cells["measure"] == ["first", "last", "best", "total"]
    assert cells["loss"][:3] == [".7500", ".6250", ".5000 (round 2)"]
    assert cells["KL baseline that was sent, nats"][:2] == [".0000", "1.2500"]
    # 1 / 1 and 1 / 3; clients twice as far; 1500 and 2 million bytes in each of three rounds.
    assert cells["length of the server's step"][:2] == ["1.0000", ".3333"]
    assert cells["length of updates, mean of the cohort"][:2] == ["2.0000", ".6667"]
    assert cells["cosine to the mean update, mean"][:2] == [".5000", ".5000"]
    assert cells["smallest in the cohort"][:2] == [".3750", ".3750"]
    assert cells["sent to clients"] == ["1.5 kB", "1.5 kB", "", "4.5 kB"]
    assert cells["sent by clients"] == ["2.0 MB", "2.0 MB", "", "6.0 MB"]
    assert cells["time of the round"] == ["2.5 s", "4.5 s", "", "10.0 s"]
    assert cells["time of validation"] == ["1.0 s", "1.0 s", "", "1.0 s"]
    assert "of it training" not in cells


def test_a_run_without_losses_says_why() -> None:
    why = "losses are private, and leave the clients only with privacy.report_private_metrics"
    private = report(summary(rounds=(round_record(1),)))
    assert why in private
    assert "loss" not in rows(private)
    assert "KL baseline that was sent, nats" not in rows(private)
    assert why not in report(summary())


def test_failures_are_named_as_far_as_there_is_room() -> None:
    rounds = tuple(round_record(n, failed={"a": f"client a raised Error{n}"}) for n in range(1, 24))
    text = report(summary(rounds=rounds))
    assert "- Updates left out: 23 of 46.\n- Round 1: client a: client a raised Error1\n" in text
    assert "- Round 20: " in text
    assert "- Round 21: " not in text
    assert "- And 3 more, all in metrics.jsonl." in text
    assert "- No update was left out." in report(summary())


def test_validations_by_hand() -> None:
    cells = rows(report(summary()))
    assert cells["2"] == [".2000", ".0250 (best)"]
    assert cells["4"] == [".4000 (best)", ".0125"]
    assert "By round: 3 clients, 8 queries" in report(summary())


def test_local_training_by_hand() -> None:
    text = report(summary(mode="local", rounds=(), losses=(0.5, 0.125, 0.25)))
    # The mean of .5, .125 and .25 is .875 by three.
    assert rows(text)["last loss"] == [".2917", ".1250", ".2500", ".5000"]
    assert "**3 clients trained alone, 4 rounds each**" in text


def test_plots_and_missing_parts_are_listed() -> None:
    text = report(summary(missing=("Rounds: 1 of 4.",)), {"Loss by round": "training.png"})
    assert text.startswith("# first: kto, federated, base-tiny\n\nNot all is there:\n\n- Rounds: ")
    assert text.endswith("## Plots\n\n![Loss by round](training.png)\n")
    assert "\n\n\n" not in text
    assert "Not all is there" not in report(summary())
