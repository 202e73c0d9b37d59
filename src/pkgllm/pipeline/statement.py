"""The note on privacy of a run, from its configuration and its files; no model is loaded."""

from pkgllm.config import schema
from pkgllm.privacy.statements import Guarantee, no_guarantee, statement
from pkgllm.prompts.partition.partition import MOVED


def privacy_statement(config: schema.AnyExperiment, guarantee: Guarantee | None = None) -> str:
    """Return the note on privacy that stands under every table of results."""
    if guarantee is not None:
        return statement(guarantee)
    mode = config.mode
    if not isinstance(config, schema.Experiment):
        return no_guarantee(mode.name, None)
    if config.privacy.adds_noise:
        return f"Privacy: unit {config.privacy.name}; the epsilon that was spent is not on record."
    if not isinstance(mode, schema.Federated):
        return no_guarantee(mode.name, None)
    leaks = []
    if config.privacy.report_private_metrics:
        leaks.append("losses and counts leave the clients")
    if config.partition.moves_examples:
        leaks.append(MOVED)
    return no_guarantee(mode.name, leaks)
