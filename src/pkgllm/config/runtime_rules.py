"""What a runtime needs of the rest of the configuration."""

from collections.abc import Iterator

from pkgllm.config.mode_sections import DeploymentRuntime, Federated, RayRuntime
from pkgllm.config.observation_sections import Observation
from pkgllm.config.training_sections import BaseModelChoice
from pkgllm.privacy.unit import PrivacyUnit
from pkgllm.prompts.partition.partition import Partition


def runtime_problems(
    mode: Federated,
    base_model: BaseModelChoice,
    partition: Partition,
    observation: Observation,
    privacy: PrivacyUnit,
) -> Iterator[str]:
    """Yield what does not fit the mode's runtime, one line each."""
    if privacy.hides_clients and mode.max_update_norm is not None:
        yield (
            "mode.max_update_norm does not go with privacy.unit client, whose privacy.clip_norm "
            f"bounds every update; leave it out, got {mode.max_update_norm:g}"
        )
    match mode.runtime:
        case RayRuntime() as runtime:
            yield from _ray_problems(runtime, base_model)
        case DeploymentRuntime():
            yield from _deployment_problems(partition, observation)
            if privacy.hides_examples and privacy.budget is None:
                yield (
                    "privacy.target_epsilon or privacy.max_epsilon must be given with mode.runtime "
                    "deployment, because each client keeps its ledger by itself, and its budget is "
                    "all that the server can tell of epsilon"
                )


def _ray_problems(runtime: RayRuntime, base_model: BaseModelChoice) -> Iterator[str]:
    device, gpus = base_model.device, runtime.gpus_per_client
    if device.startswith("cuda") and gpus == 0:
        yield (
            f"base_model.device {device} needs mode.runtime.gpus_per_client above 0, because "
            "Ray shows a client no other GPU; got 0"
        )
    if gpus > 1 and gpus != int(gpus):
        yield (
            "mode.runtime.gpus_per_client must be whole where it is above 1, because Ray "
            f"divides only single GPUs; got {gpus:g}"
        )


def _deployment_problems(partition: Partition, observation: Observation) -> Iterator[str]:
    if partition.changes_groups:
        yield (
            f"partition {partition.name} needs a runtime that has everybody's examples in one "
            "place; use partition by_client with mode.runtime deployment"
        )
    if observation.evaluate_every:
        yield (
            "observation.evaluate_every must be 0 with mode.runtime deployment, whose server has "
            f"nobody's graph; got {observation.evaluate_every}"
        )
