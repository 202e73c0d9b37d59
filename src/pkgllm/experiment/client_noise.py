"""What clients protect their updates with before they send them, as a configuration says."""

from peft import PeftModel

from pkgllm.config import schema
from pkgllm.experiment.privacy_run import local_noise
from pkgllm.federation.client_noise import ClientNoise
from pkgllm.lm.adapter import trained_keys
from pkgllm.privacy.noise import NoiseSource


def make_noise(
    config: schema.Experiment,
    policy: PeftModel,
    noise_multiplier: float | None,
    source: NoiseSource,
) -> ClientNoise | None:
    """Return what adds each client's share of the noise; None where clients add none.

    Args:
        config: The run's configuration.
        policy: Says which tensors are trained.
        noise_multiplier: Given, or computed from the target epsilon; None without a privacy unit.
        source: Of the noise.
    """
    settings = None if noise_multiplier is None else local_noise(config, noise_multiplier)
    if settings is None:
        return None
    return ClientNoise(settings, source=source, trained=trained_keys(policy))
