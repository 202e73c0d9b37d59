"""What a run folder says about its run: written when it begins, checked when it is used again."""

import json
import logging
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path

from pkgllm.config.differences import differences, tree_differences
from pkgllm.config.load import load_any_config, load_config
from pkgllm.config.schema import AnyExperiment, Experiment, Federated
from pkgllm.corpora.population import Population
from pkgllm.corpora.splits import split_digest
from pkgllm.errors import ConfigError, DataError, ModelError, RunError
from pkgllm.lm.base_model import BaseModel, load_base_model
from pkgllm.lm.model_files import WEIGHTS, changed_files, covers_files
from pkgllm.runs.folder import CLIENT_ADAPTERS, RunFolder, provenance
from pkgllm.runs.records import RecordedLikes, RecordedSplit, RunOrigin, read_object, read_record

logger = logging.getLogger(__name__)

_PLACES = ("output", "base_model.name", "base_model.device", "corpus.folder", "corpus.movie_facts")
"""Keys that say where something lies or runs."""

LIKED = "liked_in_training.json"
"""What each training client likes: all that the simple baselines learn from."""


def load_base(config: Experiment) -> BaseModel:
    """Load the base model that a configuration names."""
    choice = config.base_model
    return load_base_model(choice.name, device=choice.device, dtype=choice.dtype)


def run_digests(population: Population, base: BaseModel | None) -> dict[str, str]:
    """Return what must be the same for a run to go on: corpus, split and base model, if any."""
    read = {**population.corpus.digests, "split": split_digest(population.splits)}
    return read if base is None else {**read, **base.digests}


def run_provenance(
    config: AnyExperiment, population: Population, base: BaseModel | None, device: object
) -> dict[str, object]:
    """Return the origin of a run; see :func:`pkgllm.runs.folder.provenance`."""
    digests = run_digests(population, base)
    made_of = provenance(seed=config.seed, digests=digests)
    return {**made_of, "configuration": config.model_dump(mode="json"), "device": str(device)}


def write_record(run: RunFolder, population: Population, made_of: Mapping[str, object]) -> None:
    """Write down what a run begins with: the split, what is liked in training, the provenance."""
    run.write_json("split.json", population.split_record())
    run.write_json(LIKED, {"clients": population.liked_in_training()})
    # Last, since it says that the others are there.
    run.write_json("provenance.json", made_of)


def check_same_split(run: RunFolder, population: Population) -> None:
    """Fail where the data are not those that a run was trained on, or its split was edited.

    Raises:
        DataError: If they are not, or it was.
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
    _check_unedited(run, population)


def _check_unedited(run: RunFolder, population: Population) -> None:
    """Fail where a file of a run does not hold what data and configuration give."""
    _check_content(run.split, population.split_record())
    _check_content(run.path / LIKED, {"clients": population.liked_in_training()})


def _check_content(path: Path, expected: Mapping[str, object]) -> None:
    then, now = json.loads(json.dumps(expected)), read_object(path)
    changed = []
    for key in sorted({*then, *now}):
        one, other = then.get(key), now.get(key)
        if isinstance(one, dict) and isinstance(other, dict):
            parts = (part for part in sorted({*one, *other}) if one.get(part) != other.get(part))
            changed += [f"{key} {part}" for part in parts]
        elif one != other:
            changed.append(key)
    if changed:
        shown = ", ".join(changed[:3]) + (f" and {len(changed) - 3} more" if changed[3:] else "")
        raise DataError(
            f"{path}: was changed since the run began ({shown}); restore it, or train anew"
        )


def check_same_data(run: RunFolder, population: Population) -> None:
    """Fail where a run would not read what it began with, or its record of that was edited.

    Raises:
        DataError: If it would not, or it was.
    """
    then = read_record(run.provenance, RunOrigin).digests
    now = run_digests(population, None)
    names = {name for name in then if name.split("/")[0] != WEIGHTS} | now.keys()
    changed = [name for name in sorted(names) if now.get(name) != then.get(name)]
    if changed:
        raise DataError(
            f"{run.path}: the data have changed since the run began ({', '.join(changed)}); "
            "restore them, or train anew"
        )
    _check_unedited(run, population)


def check_same_base(run: RunFolder, base: BaseModel) -> None:
    """Fail where base model or adapter are not those of a run.

    Raises:
        ModelError: If a file of the base model that decides tokens or logits, or the adapter, is
            not the one of the run.
    """
    origin = read_record(run.provenance, RunOrigin)
    if changed := changed_files(origin.digests, base.digests):
        name = load_config(str(run.config)).base_model.name
        raise ModelError(
            f"{run.path}: base model {base.name} is not the one the run was trained on, {name} "
            f"({', '.join(changed)} differ); put the base model of the run back"
        )
    unknown = []
    if covers_files(base.digests) and not covers_files(origin.digests):
        unknown.append("base model's configuration, tokenizer and chat template")
    if run.adapter.exists():
        if origin.adapter is None:
            unknown.append("adapter")
        elif origin.adapter != _adapter_digest(run):
            raise ModelError(
                f"{run.adapter}: the adapter is not the one that the run trained; restore it, or "
                "train anew"
            )
    if unknown:
        logger.warning(
            "run folder %s: an earlier version kept no digest of %s, so no change can be noticed",
            run.path,
            " and ".join(unknown),
        )


def record_adapter(run: RunFolder) -> None:
    """Keep the digest of a run's adapters, now that they are trained, beside its origin."""
    if run.provenance.exists():
        made_of = {**read_object(run.provenance), "adapter": _adapter_digest(run)}
        run.write_json(run.provenance.name, made_of)


def _adapter_digest(run: RunFolder) -> str:
    digest = sha256()
    for folder in (run.adapter, run.path / CLIENT_ADAPTERS):
        for path in sorted(folder.rglob("*.*")):
            if path.is_file():
                digest.update(f"{path.relative_to(run.path)}\n".encode())
                digest.update(sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def check_same_configuration(
    run: RunFolder, config: AnyExperiment, *, may_differ: Sequence[str] = ()
) -> None:
    """Fail where a run's ``config.yaml`` was edited since the run began.

    Keys that say where data and base model lie may differ, because their contents have digests.

    Args:
        run: The run folder.
        config: As its ``config.yaml`` reads now.
        may_differ: Beginnings of further keys that may differ.

    Raises:
        ConfigError: If it was edited; all differing keys are named.
    """
    if not run.provenance.exists():
        return
    then = read_record(run.provenance, RunOrigin).configuration
    if then is None:
        logger.warning(
            "run folder %s: an earlier version kept no copy of the configuration, so no change of "
            "config.yaml can be noticed",
            run.path,
        )
        return
    changed = [
        line
        for key, line in tree_differences(then, config.model_dump(mode="json")).items()
        if not key.startswith((*_PLACES, *may_differ))
    ]
    if changed:
        raise ConfigError(
            f"{run.config}: was changed since the run began: {'; '.join(changed)}; restore it, or "
            "train anew"
        )


def read_liked(run: Path) -> list[list[str]]:
    """Read what each training client likes, from the folder of a run."""
    return read_record(run / LIKED, RecordedLikes).clients


def check_goes_back(run: RunFolder, config: AnyExperiment) -> None:
    """Fail where a run cannot go back to an older round.

    Raises:
        ConfigError: If it has no rounds of a server, or clients keep states, of which there are
            only those of the newest rounds.
        RunError: If its training is done.
    """
    mode = config.mode if isinstance(config, Experiment) else None
    if not isinstance(mode, Federated) or mode.strategy.client_state:
        raise ConfigError(
            "--from-round needs mode federated with a strategy whose clients keep nothing between "
            "rounds, because what they keep is that of the newest rounds; leave it out, or train "
            "anew"
        )
    if run.adapter.exists():
        raise RunError(
            f"run folder {run.path}: --from-round needs a run whose training is not done; train "
            "anew in another folder"
        )


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
    check_same_configuration(run, config)
    if expected is not None and (differing := differences(config, expected)):
        raise ConfigError(
            f"--resume {path}: must go on with the configuration of the run, which differs in "
            f"{'; '.join(differing)}; leave --config and --set away, or train anew"
        )
    return run, config
