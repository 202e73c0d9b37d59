"""The training of an embedding over clients, in a run folder."""

import logging
from collections.abc import Callable

from pkgllm.errors import ModelError, StoppedError
from pkgllm.federation.rounds import RoundRecord
from pkgllm.interrupts import after_this_round
from pkgllm.kge.federated_embeddings import FederatedEmbeddings, train_federated_embeddings
from pkgllm.kge.federated_stage import FederatedSetup
from pkgllm.kge.files import save_server_tables
from pkgllm.pipeline.embedding_plan import EmbeddingPlan
from pkgllm.progress import Progress
from pkgllm.runs.folder import RunFolder
from pkgllm.runs.journal import EMBEDDING, STAGES, Journal, make_stages

logger = logging.getLogger(__name__)

PARTICIPATION = "participation.json"
"""Who took part in how many rounds of each stage."""


def train_federated(
    run: RunFolder, plan: EmbeddingPlan, progress: Progress, *, keep: int
) -> FederatedEmbeddings:
    """Train over clients, or go on with it, and write down what the server has and who took part.

    Raises:
        StoppedError: If a stop was asked for.
        PkgllmError: If training cannot be done.
    """
    lengths = plan.num_rounds

    def tell() -> None:
        logger.warning("stopping after this round; once more stops at once")

    with (
        run.occupied(),
        after_this_round(tell) as stop_asked,
        progress.track("training", sum(lengths.values())) as advance,
    ):
        journal = Journal(run, lengths, advance)

        def add(stage: str, record: RoundRecord, loss: float) -> None:
            journal.add(
                {"stage": stage, "round": record.round_num},
                {"cohort": list(record.cohort), "loss": loss},
            )

        make_stages(run)
        try:
            trained = _train(run, plan, keep, journal.begin, add, stop_asked)
        except StoppedError as error:
            raise StoppedError(
                f"stopped after a checkpoint; go on with: pkgllm train --resume {run.path}"
            ) from error
        run.write_json(
            PARTICIPATION,
            {
                stage: {**took_part.summary(), "rounds": dict(took_part.rounds)}
                for stage, took_part in trained.participation.items()
            },
        )
        save_server_tables(trained, run.path / EMBEDDING)
    return trained


def load_federated(run: RunFolder, plan: EmbeddingPlan) -> FederatedEmbeddings:
    """Return what a finished training came to, from the server's and the clients' checkpoints.

    Raises:
        ModelError: If the server's are not there.
        RunError: If they are of other settings, data or another seed.
    """

    def begin(stage: str, done: int) -> None:
        if done < plan.num_rounds[stage]:
            raise ModelError(
                f"{run.path / STAGES / stage}: must hold the checkpoint of the last round, "
                f"{plan.num_rounds[stage]}, has that of {done}; restore it, or train again"
            )

    return _train(run, plan, 1, begin, lambda stage, record, loss: None, lambda: False)


def _train(
    run: RunFolder,
    plan: EmbeddingPlan,
    keep: int,
    on_stage: Callable[[str, int], None],
    on_round: Callable[[str, RoundRecord, float], None],
    stop_asked: Callable[[], bool],
) -> FederatedEmbeddings:
    assert plan.federation is not None, "only a federated plan is trained over clients"
    setup = FederatedSetup(
        seed=plan.config.seed,
        device=str(plan.device),
        folder=run.path / STAGES,
        keep=keep,
        on_stage=on_stage,
        on_round=on_round,
        stop_asked=stop_asked,
    )
    return train_federated_embeddings(plan.config.embedding, plan.graph, plan.federation, setup)
