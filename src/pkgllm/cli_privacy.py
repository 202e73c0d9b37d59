"""The commands of ``pkgllm privacy``."""

from typing import Annotated, Literal

import typer

privacy_app = typer.Typer(
    help="Look at what privacy costs, and whether it holds.", no_args_is_help=True
)


@privacy_app.callback()
def _root() -> None:
    # Without it typer would make the only command the whole of ``pkgllm privacy``.
    pass


@privacy_app.command()
def audit(
    unit: Annotated[Literal["example", "client"], typer.Option(help="Whose privacy.")],
    noise_multiplier: Annotated[float, typer.Option(help="Noise on the sum, in clip norms.")],
    delta: Annotated[float, typer.Option(help="At which epsilon was stated.")],
    epsilon: Annotated[float, typer.Option(help="What was accounted for in all releases.")],
    clip_norm: Annotated[float, typer.Option(help="Longest contribution of a unit.")] = 1.0,
    sampling_probability: Annotated[float, typer.Option(help="Of each unit.")] = 1.0,
    expected_units: Annotated[float, typer.Option(help="Units drawn on average.")] = 16.0,
    releases: Annotated[int, typer.Option(help="Rounds, or steps, of the whole run.")] = 1,
    canaries: Annotated[int, typer.Option(help="Canaries; more give sharper bounds.")] = 1000,
) -> None:
    """Audit the mechanism with canaries, and compare with what was accounted for.

    Exits with 1 where a bound lies above the accounted epsilon, or noise, clip or sampling are not
    what they must be.
    """
    from rich.console import Console

    from pkgllm.experiment.privacy_audit import Claim, audit_mechanism
    from pkgllm.privacy.noise import secure
    from pkgllm.report.privacy_audit import NOTES, findings_table
    from pkgllm.report.tables import remarks_table
    from pkgllm.terminal import TerminalProgress

    claim = Claim(
        unit=unit,
        noise_multiplier=noise_multiplier,
        clip_norm=clip_norm,
        sampling_probability=sampling_probability,
        expected_units=expected_units,
        num_releases=releases,
        delta=delta,
        epsilon=epsilon,
    )
    progress = TerminalProgress(Console(stderr=True))
    findings = audit_mechanism(claim, secure(), progress, num_canaries=canaries)
    console = Console()
    console.print(findings_table(findings))
    console.print()
    console.print(remarks_table(NOTES))
    if not all(finding.passed for finding in findings):
        raise typer.Exit(1)
