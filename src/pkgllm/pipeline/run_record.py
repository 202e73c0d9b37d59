"""What a run folder says about its run: written when it begins, checked when it is used again."""

from collections.abc import Mapping
from pathlib import Path

from pkgllm.config.differences import differences
from pkgllm.config.load import load_any_config, load_config
from pkgllm.config.schema import AnyExperiment, Experiment
from pkgllm.corpora.population import Population
from pkgllm.corpora.splits import split_digest
from pkgllm.errors import ConfigError, DataError, ModelError, RunError
from pkgllm.lm.base_model import BaseModel, load_base_model
from pkgllm.runs.folder import RunFolder, provenance
from pkgllm.runs.records import RecordedLikes, RecordedSplit, RunOrigin, read_record

LIKED = "liked_in_training.json"
"""What each training client likes: all that the simple baselines learn from."""


def load_base(config: Experiment) -> BaseModel:
    """Load the base model that a configuration names."""
    choice = config.base_model
    return load_base_model(choice.name, device=choice.device, dtype=choice.dtype)


def run_digests(population: Population, base: BaseModel | None) -> dict[str, str]:
    """Return what must be the same for a run to go on: corpus, split and base model, if any."""
    read = {**population.corpus.digests, "split": split_digest(population.splits)}
    return read if base is None else {**read, "base_model": base.digest}


def run_provenance(
    config: AnyExperiment, population: Population, base: BaseModel | None, device: object
) -> dict[str, object]:
    """Return the origin of a run; see :func:`pkgllm.runs.folder.provenance`."""
    digests = run_digests(population, base)
    return {**provenance(seed=config.seed, digests=digests), "device": str(device)}


def write_record(run: RunFolder, population: Population, made_of: Mapping[str, object]) -> None:
    """Write down what a run begins with: the split, what is liked in training, the provenance."""
    run.write_json("split.json", population.split_record())
    run.write_json(LIKED, {"clients": population.liked_in_training()})
    # Last, since it says that the others are there.
    run.write_json("provenance.json", made_of)


def check_same_split(run: RunFolder, population: Population) -> None:
    """Fail where the data are not those that a run was trained on.

    Raises:
        DataError: If they are not.
    """
    trained_on = read_record(run.split, RecordedSplit).digest
    if trained_on is None:
        raise DataError(
            f"{run.path}: the run was trained on clients' own machines, so its people are not "
            "known here; name a folder of others with --data"
        )
    if trained_on != split_digest(population.splits):
        raise DataError(
            f"{run.path}: the data have changed since the run was trained, so its held-out facts "
            "may have been trained on; restore the data, or name other people's with --data"
        )


def check_same_data(run: RunFolder, population: Population, base: BaseModel | None) -> None:
    """Fail where a run that is to go on would not read what it began with.

    Raises:
        DataError: If it would not.
    """
    then = read_record(run.provenance, RunOrigin).digests
    now = run_digests(population, base)
    changed = [name for name in sorted(now.keys() | then.keys()) if now.get(name) != then.get(name)]
    if changed:
        raise DataError(
            f"{run.path}: the data have changed since the run began ({', '.join(changed)}); "
            "restore them, or train anew"
        )


def check_same_base(run: RunFolder, base: BaseModel) -> None:
    """Fail where the base model is not the one that a run's adapter was trained on.

    Raises:
        ModelError: If it is not.
    """
    trained_on = read_record(run.provenance, RunOrigin).digests.get("base_model")
    if trained_on != base.digest:
        name = load_config(str(run.config)).base_model.name
        raise ModelError(
            f"{run.adapter}: the adapter was trained on base model {name} with digest "
            f"{trained_on}, but {base.name} has {base.digest}; put the base model of the run back"
        )


def read_liked(run: Path) -> list[list[str]]:
    """Read what each training client likes, from the folder of a run."""
    return read_record(run / LIKED, RecordedLikes).clients


def open_unfinished(path: Path, expected: AnyExperiment | None) -> tuple[RunFolder, AnyExperiment]:
    """Open the folder of a run that is to go on, and read its configuration.

    ``expected`` is the configuration that the caller believes the run to have.

    Raises:
        RunError: If nothing had begun there.
        ConfigError: If ``expected`` is another configuration; all differing keys are named.
    """
    if path.is_dir() and not (path / "config.yaml").exists():
        raise RunError(
            f"run folder {path}: nothing to go on with, because config.yaml is missing: the run "
            "was stopped before it began; train anew with --config"
        )
    run = RunFolder.open(path)
    config = load_any_config(str(run.config))
    if expected is not None and (differing := differences(config, expected)):
        raise ConfigError(
            f"--resume {path}: must go on with the configuration of the run, which differs in "
            f"{'; '.join(differing)}; leave --config and --set away, or train anew"
        )
    return run, config
