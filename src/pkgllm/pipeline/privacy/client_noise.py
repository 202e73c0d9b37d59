"""What adds each client's share of the noise to its update before it is sent."""

from pathlib import Path

from peft import PeftModel

from pkgllm.federation.client_noise import ClientNoise
from pkgllm.federation.client_state import ClientStates
from pkgllm.lm.adapter import trained_keys
from pkgllm.privacy.device_ledger import DeviceShares
from pkgllm.privacy.ledger import ChargedBefore
from pkgllm.privacy.local_noise import LocalNoise
from pkgllm.privacy.noise import NoiseSource, secure


def make_noise(
    settings: LocalNoise | None,
    policy: PeftModel,
    source: NoiseSource,
    *,
    charged: ChargedBefore | None = None,
) -> ClientNoise | None:
    """Return what adds each client's share of the noise; None where clients add none.

    Args:
        settings: How clients protect what they send.
        policy: Says which tensors are trained.
        source: Of the noise.
        charged: Looks for the charges of the process that keeps the ledger, from another one.
    """
    if settings is None:
        return None
    mechanism = settings.mechanism

    def charge(client: str, round_num: int) -> None:
        if charged is not None:
            charged(round_num, {client: mechanism})

    return ClientNoise(settings, source=source, trained=trained_keys(policy), charge=charge)


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
