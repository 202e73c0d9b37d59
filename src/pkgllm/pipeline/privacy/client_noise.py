"""What clients protect their updates with before they send them, as a configuration says."""

from collections.abc import Callable
from pathlib import Path

from peft import PeftModel

from pkgllm.config import schema
from pkgllm.federation.client_noise import ClientNoise
from pkgllm.federation.client_state import ClientStates
from pkgllm.lm.adapter import trained_keys
from pkgllm.pipeline.privacy.devices import DeviceShares
from pkgllm.pipeline.privacy.run import local_noise, share_mechanism
from pkgllm.privacy.ledger import ChargedBefore
from pkgllm.privacy.local_noise import LocalNoise
from pkgllm.privacy.noise import NoiseSource, secure


def make_noise(
    config: schema.Experiment,
    policy: PeftModel,
    noise_multiplier: float | None,
    source: NoiseSource,
    *,
    charged: ChargedBefore | None = None,
) -> ClientNoise | None:
    """Return what adds each client's share of the noise; None where clients add none.

    Args:
        config: The run's configuration.
        policy: Says which tensors are trained.
        noise_multiplier: Given, or computed from the target epsilon; None without a privacy unit.
        source: Of the noise.
        charged: Looks for the charges of the process that keeps the ledger, from another one.
    """
    settings = None if noise_multiplier is None else local_noise(config, noise_multiplier)
    if settings is None:
        return None
    return ClientNoise(
        settings,
        source=source,
        trained=trained_keys(policy),
        charge=_look_for(charged, settings) if charged else lambda client, round_num: None,
    )


def make_device_noise(shares: DeviceShares, policy: PeftModel, folder: Path) -> ClientNoise:
    """Return what adds a client's share on its own device.

    Args:
        shares: How, and what pays for it.
        policy: Says which tensors are trained.
        folder: Keeps the share that was sent last.
    """
    return ClientNoise(
        shares.settings,
        source=secure(),
        trained=trained_keys(policy),
        charge=shares.charge,
        shares=ClientStates(folder),
    )


def _look_for(charged: ChargedBefore, settings: LocalNoise) -> Callable[[str, int], None]:
    one = share_mechanism(settings)
    return lambda client, round_num: charged(round_num, {client: one})
