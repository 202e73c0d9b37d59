"""A trained run as a person's recommender."""

from dataclasses import dataclass
from pathlib import Path

from pkgllm.assistant.recommend import Recommender
from pkgllm.config.load import load_config
from pkgllm.config.schema import Experiment
from pkgllm.corpora.catalogue import Catalogue
from pkgllm.lm.adapter import load_adapter
from pkgllm.lm.base_model import BaseModel
from pkgllm.pipeline.build import check_room, make_writer, read_corpus
from pkgllm.pipeline.run_record import check_same_base, load_base
from pkgllm.runs.folder import RunFolder


@dataclass(frozen=True, slots=True)
class TrainedModel:
    """A run's adapter on its base model, and how the run was configured."""

    run: RunFolder
    config: Experiment
    base: BaseModel
    recommender: Recommender


def open_recommender(
    path: Path, *, catalogue: Catalogue | None = None, base_model: str | None = None
) -> TrainedModel:
    """Load a run's adapter, its prompt settings, and what it can recommend.

    Args:
        path: The run folder.
        catalogue: Items of any domain; those of the run's corpus when absent.
        base_model: Where the run's base model is found here; as in the run when absent.

    Raises:
        RunError: If the folder holds no trained adapter.
        ModelError: If the base model is not the one that the adapter was trained on.
        PkgllmError: If anything else that the run needs cannot be used.
    """
    run = RunFolder.open(path, needed=("config.yaml", "provenance.json", "adapter"))
    config = load_config(str(run.config))
    if base_model is not None:
        elsewhere = config.base_model.model_copy(update={"name": base_model})
        config = config.model_copy(update={"base_model": elsewhere})
    items = read_corpus(config).catalogue if catalogue is None else catalogue
    base = load_base(config)
    check_same_base(run, base)
    writer = make_writer(config.prompt, base)
    check_room(config.prompt, writer, base, items)
    policy = load_adapter(base.model, run.adapter)
    recommender = Recommender(policy, writer, items, max_positions=base.max_positions)
    return TrainedModel(run, config, base, recommender)
