"""The public API: what the commands do, as functions that return values.

Each function takes what its command takes, prints nothing unless it is given a progress, and
raises :class:`pkgllm.errors.PkgllmError` with the message that the command would end with.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pkgllm.config.load import load_any_config
from pkgllm.config.schema import AnyExperiment
from pkgllm.corpora.catalogue import Catalogue
from pkgllm.files import expanded
from pkgllm.progress import Progress, Silent
from pkgllm.report.comparison import comparison_document
from pkgllm.report.document import Document
from pkgllm.report.results import RunResults
from pkgllm.report.to_html import html
from pkgllm.report.to_latex import latex
from pkgllm.report.to_markdown import markdown
from pkgllm.runs.folder import RunFolder

if TYPE_CHECKING:
    from pandas import DataFrame
    from peft import PeftModel

    from pkgllm.assistant.recommend import Recommender
    from pkgllm.graph.personal_graph import PersonalGraph
    from pkgllm.studies.sweep import StudyResult


@dataclass(frozen=True, slots=True)
class Run:
    """A run folder, finished or not; a notebook shows its table."""

    path: Path

    @property
    def config(self) -> AnyExperiment:
        """The whole configuration, defaults included."""
        return load_any_config(str(RunFolder.open(self.path).config))

    @property
    def results(self) -> RunResults:
        """The records of the run: rounds, final numbers, plots."""
        from pkgllm.pipeline.reporting import read_run

        return RunResults(read_run(self.path))

    @property
    def adapter(self) -> Path:
        """The folder of the trained adapter, which ``PeftModel.from_pretrained`` loads."""
        return RunFolder.open(self.path, needed=("adapter",)).adapter

    def policy(self) -> "PeftModel":
        """Return the base model with the trained adapter, in evaluation mode.

        Raises:
            RunError: If the run has no adapter.
            ModelError: If the base model is not the one that the adapter was trained on.
        """
        from peft import PeftModel

        model = self.recommender().model
        assert isinstance(model, PeftModel)
        return model

    def recommender(
        self, *, catalogue: Catalogue | None = None, base_model: str | None = None
    ) -> "Recommender":
        """Return what recommends from a person's graph with the trained adapter.

        Args:
            catalogue: Items of any domain; those of the run's corpus when absent.
            base_model: Where the run's base model lies here; as in the run when absent.
        """
        from pkgllm.pipeline.recommender import open_recommender

        opened = open_recommender(self.path, catalogue=catalogue, base_model=base_model)
        return opened.recommender

    def table(self) -> Document:
        """Return the tables of the final numbers."""
        return self.results.table()

    def to_frame(self) -> "DataFrame":
        """Return every estimate as one row; see :meth:`RunResults.to_frame`."""
        return self.results.to_frame()

    def to_latex(self) -> str:
        """Return the table as LaTeX, which needs the package ``booktabs``."""
        return self.results.to_latex()

    def plots(self) -> dict[str, dict[str, bytes]]:
        """Return each plot that the run has numbers for, by name and format (png, svg)."""
        return self.results.plots()

    def _repr_html_(self) -> str:
        return self.results._repr_html_()


@dataclass(frozen=True, slots=True)
class Comparison:
    """Tests of the differences between runs; a notebook shows their table."""

    values: Mapping[str, Any]
    """As ``pkgllm compare -o FILE.json`` writes them."""

    def table(self) -> Document:
        """Return the tables that the command prints."""
        return comparison_document(self.values)

    def to_markdown(self) -> str:
        """Return the tables as Markdown."""
        return markdown(self.table())

    def to_latex(self) -> str:
        """Return the tables as LaTeX, which needs the package ``booktabs``."""
        return latex(self.table())

    def _repr_html_(self) -> str:
        return html(self.table())


def load_config(name_or_path: str | Path, overrides: Sequence[str] = ()) -> AnyExperiment:
    """Read a configuration: a path, a file in ``./configs``, or a shipped preset.

    Args:
        name_or_path: Such as ``quickstart.yaml``.
        overrides: Values to set over those of the file, each ``KEY=VALUE``; later ones win.

    Raises:
        ConfigError: For everything that is wrong, one line each.

    Example:
        >>> load_config("quickstart.yaml", ["objective={name: dpo}"]).objective.name
        'dpo'
    """
    return load_any_config(str(name_or_path), overrides)


def load_run(path: str | Path) -> Run:
    """Open a run folder.

    Raises:
        RunError: If the folder holds no run.
    """
    return Run(RunFolder.open(Path(path)).path)


def train(
    config: AnyExperiment | str | Path,
    output: str | Path | None = None,
    *,
    overrides: Sequence[str] = (),
    progress: Progress | None = None,
) -> Run:
    """Train and rank: the whole job of a configuration.

    Args:
        config: A configuration, or what :func:`load_config` takes.
        output: The run folder to make; a new one below the configuration's ``output`` when absent.
        overrides: As for :func:`load_config`, with a file only.
        progress: Shows the work, such as ``pkgllm.terminal.show_progress()``.

    Raises:
        ValueError: If overrides are given beside a configuration that was loaded before.
        PkgllmError: If anything that the configuration names cannot be used.
    """
    from pkgllm.pipeline.train import train as train_run

    if isinstance(config, str | Path):
        name, tree = Path(config).stem, load_config(config, overrides)
    elif overrides:
        raise ValueError("overrides go with the name of a file; give them to load_config")
    else:
        name, tree = "run", config
    if output is None:
        output = expanded(tree.output) / f"{name}-{datetime.now(UTC):%Y%m%d-%H%M%S}"
    train_run(tree, Path(output), progress or Silent())
    return Run(Path(output))


def resume(path: str | Path, *, progress: Progress | None = None) -> Run:
    """Go on with a run that was stopped, killed or failed, to the same bytes.

    Args:
        path: The run folder.
        progress: Shows the work.
    """
    from pkgllm.pipeline.train import resume as resume_run

    resume_run(Path(path), progress or Silent())
    return Run(Path(path))


def evaluate(
    run: Run | str | Path,
    *,
    data: str | Path | None = None,
    overrides: Sequence[str] = (),
    output: str | Path | None = None,
    progress: Progress | None = None,
) -> Run:
    """Rank with a finished run's models again, or rank other people with them.

    Args:
        run: A run, or its folder.
        data: Another folder in the corpus's format, whose clients were all unseen in training.
        overrides: Values of ``evaluation`` to set over those of the run, each ``KEY=VALUE``.
        output: Folder to make; the next number below ``RUN/evaluations`` when absent.
        progress: Shows the work.

    Returns:
        The folder of the evaluation, with a table as a run has.
    """
    from pkgllm.pipeline.evaluate import evaluate_run

    (report,) = evaluate_run(
        _folder(run),
        progress or Silent(),
        data=None if data is None else Path(data),
        output=None if output is None else Path(output),
        overrides=overrides,
    )
    return Run(report.folder)


def compare(
    runs: Sequence[Run | str | Path], metrics: Sequence[str] = ("hits@10", "mrr")
) -> Comparison:
    """Test the differences between runs that were asked the same.

    Args:
        runs: Runs or evaluations, or their folders; the first is what others are compared with.
        metrics: Such as ``mrr``.
    """
    from pkgllm.pipeline.comparison import compare as compare_runs

    return Comparison(compare_runs([_folder(run) for run in runs], metrics))


def sweep(
    study: str | Path,
    output: str | Path | None = None,
    *,
    processes: int = 1,
    progress: Progress | None = None,
) -> "StudyResult":
    """Do every run of a study that is not finished, then sum all of them up.

    Args:
        study: A file, or the name of a shipped one, such as ``studies/aggregators.yaml``.
        output: Folder of the run folders and the summary; ``runs/STUDY`` when absent.
        processes: Runs at a time. Of several, each has a process of its own.
        progress: Shows the run in flight.
    """
    from pkgllm.studies.sweep import sweep as sweep_study

    return sweep_study(study, output, processes=processes, progress=progress)


def read_graph(path: str | Path) -> "PersonalGraph":
    """Read a person's graph from their file, JSON-LD or Turtle by its ending.

    Raises:
        DataError: If the file cannot be read, or does not hold a personal graph.
    """
    from pkgllm.graph.rdf import read_graph as read_file

    return read_file(Path(path))


def _folder(run: Run | str | Path) -> Path:
    return run.path if isinstance(run, Run) else Path(run)
