from dataclasses import replace
from pathlib import Path

import pytest
import torch

from helpers.quadratic_clients import adapter_at, same_bytes
from pkgllm.errors import PrivacyError, RunError
from pkgllm.federation.client_noise import ClientNoise
from pkgllm.federation.client_state import ClientStates
from pkgllm.federation.messages import Broadcast, Instruction
from pkgllm.privacy.local_noise import LocalNoise
from pkgllm.privacy.noise import secure

SETTINGS = LocalNoise(clip_norm=2.0, noise_multiplier=1.5, min_shares=4)
ASKED = Instruction(adapter=adapter_at(0.5), round_num=3, learning_rate=0.1, local_noise=SETTINGS)
TRAINED = adapter_at(0.75)

OTHERS = {
    "adapter": replace(ASKED, adapter=adapter_at(0.5000001)),
    "round": replace(ASKED, round_num=4),
    "rate": replace(ASKED, learning_rate=0.2),
    "number": replace(ASKED, broadcast=Broadcast(numbers={"proximal-mu": 0.2})),
    "baseline": replace(ASKED, kl_baseline=0.5),
    "tensors": replace(ASKED, broadcast=Broadcast(tensors={"control": adapter_at(0.0)})),
    "accepted": replace(ASKED, accepted_round=2),
    "noise": replace(ASKED, local_noise=replace(SETTINGS, min_shares=5)),
}


class Device:
    """A client whose process may be started again."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.charged: list[tuple[str, int]] = []

    def start(self) -> ClientNoise:
        return ClientNoise(
            SETTINGS,
            source=secure(),
            trained=list(TRAINED),
            charge=lambda client, round_num: self.charged.append((client, round_num)),
            shares=ClientStates(self.path),
        )


@pytest.fixture
def device(tmp_path: Path) -> Device:
    return Device(tmp_path / "share")


def test_who_asks_again_gets_the_same_share_and_it_is_charged_once(device: Device) -> None:
    noise = device.start()
    first = noise.protect("ann", ASKED, TRAINED)
    assert not same_bytes(first, TRAINED)
    # What the client has trained may differ in its last bits, as on a GPU; the share does not.
    again = noise.protect("ann", ASKED, adapter_at(0.7500001))
    restarted = device.start().protect("ann", ASKED, TRAINED)
    assert same_bytes(first, again)
    assert same_bytes(first, restarted)
    assert device.charged == [("ann", 3)]


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS)
def test_to_any_other_instruction_the_noise_is_fresh_and_charged(
    device: Device, other: Instruction
) -> None:
    noise = device.start()
    first = noise.protect("ann", ASKED, TRAINED)
    second = noise.protect("ann", other, TRAINED)
    key = "layer.lora_A"
    assert not torch.equal(first[key] - ASKED.adapter[key], second[key] - other.adapter[key])
    assert device.charged == [("ann", 3), ("ann", other.round_num)]
    # Of two shares the first is forgotten, so asking for it is a release of its own.
    assert not same_bytes(noise.protect("ann", ASKED, TRAINED), first)
    assert len(device.charged) == 3


def test_what_cannot_be_charged_is_neither_made_nor_kept(device: Device) -> None:
    def refuse(client: str, round_num: int) -> None:
        raise PrivacyError("the budget is spent")

    noise = ClientNoise(
        SETTINGS,
        source=secure(),
        trained=list(TRAINED),
        charge=refuse,
        shares=ClientStates(device.path),
    )
    with pytest.raises(PrivacyError, match="the budget is spent"):
        noise.protect("ann", ASKED, TRAINED)
    assert not device.path.exists()


def test_a_share_that_cannot_be_kept_is_not_sent(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="cannot make"):
        Device(tmp_path / "nowhere" / "share").start().protect("ann", ASKED, TRAINED)


def test_a_damaged_share_is_an_error(device: Device) -> None:
    device.start().protect("ann", ASKED, TRAINED)
    (path,) = device.path.rglob("*.safetensors")
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(RunError, match=r"must hold a client's state.*remove the folder"):
        device.start().protect("ann", ASKED, TRAINED)
