"""The commands of ``pkgllm privacy``."""

from pathlib import Path
from typing import Annotated

import typer

from pkgllm.cli.options import ConfigOption, SetOption, example
from pkgllm.errors import ConfigError

privacy_app = typer.Typer(
    help="Look at what privacy costs, and whether it holds.", no_args_is_help=True
)


@privacy_app.callback()
def _root() -> None:
    # Without it typer would make the only command the whole of ``pkgllm privacy``.
    pass


@privacy_app.command(
    epilog=example("pkgllm privacy plan -c mine.yaml --set privacy.target_epsilon=3")
)
def plan(config: ConfigOption, overrides: SetOption = None) -> None:
    """Tell the epsilon of a whole run, and how loud the noise is, without training."""
    from pkgllm.config.load import load_config

    tree = load_config(config, overrides or [])

    from pkgllm.pipeline.privacy import plan_run
    from pkgllm.report.privacy import plan_document
    from pkgllm.report.to_terminal import show

    show(plan_document(plan_run(tree)))


@privacy_app.command(
    epilog=example("pkgllm privacy audit -c mine.yaml --set privacy.target_epsilon=3")
)
def audit(
    config: ConfigOption,
    overrides: SetOption = None,
    canaries: Annotated[int, typer.Option(help="Canaries; more give sharper bounds.")] = 1000,
    epsilon: Annotated[
        float | None, typer.Option(help="Compare with this instead of the planned epsilon.")
    ] = None,
) -> None:
    """Audit a run's mechanism with canaries, and compare with its epsilon.

    Exits with 1 where a bound lies above the accounted epsilon, or noise, clip or sampling are not
    what they must be.
    """
    from pkgllm.config.load import load_config

    tree = load_config(config, overrides or [])

    from pkgllm.federation.round_privacy import cohort_sample
    from pkgllm.pipeline.privacy import plan_run
    from pkgllm.privacy.mechanism_audit import audit_mechanism, claim_of
    from pkgllm.privacy.noise import poisson_sample, secure
    from pkgllm.report.privacy import audit_document
    from pkgllm.report.to_terminal import show
    from pkgllm.terminal import show_progress

    if epsilon is not None and epsilon <= 0:
        raise ConfigError(f"--epsilon must be above 0, got {epsilon:g}")
    claim = claim_of(plan_run(tree), accounted=epsilon)
    # Of the unit client the cohorts are what is sampled, and of the unit example the batches.
    sampler = cohort_sample if claim.unit == "client" else poisson_sample
    findings = audit_mechanism(
        claim, secure(), show_progress(), num_canaries=canaries, sampler=sampler
    )
    show(audit_document(findings))
    if not all(finding.passed for finding in findings):
        raise typer.Exit(1)


@privacy_app.command(
    epilog=example("pkgllm privacy canaries -c quickstart.yaml --delta 1e-4 -o runs/canary")
)
def canaries(
    config: Annotated[str, typer.Option("--config", "-c", help="What to train.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The run folder to make.")],
    delta: Annotated[float, typer.Option(help="At which epsilon is stated.")],
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="Override one key. Repeatable.")
    ] = None,
    put_in: Annotated[
        list[str] | None,
        typer.Option(
            metavar="REPEATS:COUNT",
            help="So many canaries that enter so many groups; 1:100, 5:50 and 25:50 if absent.",
        ),
    ] = None,
) -> None:
    """Train with made-up facts in the graphs, and measure what the adapter reveals of them.

    The run folder is for the audit alone: the model has learnt what nobody said.
    """
    from pkgllm.config.load import load_config

    tree = load_config(config, overrides or [])
    counts = _counts(put_in or ["1:100", "5:50", "25:50"])
    if not 0 < delta < 1:
        raise ConfigError(f"--delta must be above 0 and below 1, got {delta:g}")

    from dataclasses import asdict

    from pkgllm.pipeline.canaries import train_with_canaries
    from pkgllm.report.privacy import canaries_document
    from pkgllm.report.to_terminal import show
    from pkgllm.terminal import show_progress

    results = train_with_canaries(
        tree, output, show_progress(), count_by_repeats=counts, delta=delta
    )
    show(canaries_document([asdict(result) for result in results]))


def _counts(texts: list[str]) -> dict[int, int]:
    counts = {}
    for text in texts:
        repeats, _, count = text.partition(":")
        if not (repeats.isdecimal() and count.isdecimal() and int(repeats) and int(count)):
            raise ConfigError(
                f"--put-in must be two positive whole numbers as in 25:50, got {text!r}"
            )
        counts[int(repeats)] = int(count)
    return counts
