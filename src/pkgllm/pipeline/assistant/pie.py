"""``pkgllm reproduce pie``: do people leave their bubble when the graph is adapted?"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pkgllm.assistant.recommend import Recommender
from pkgllm.config.load import load_config
from pkgllm.corpora.domains import SHIPPED, read_domain
from pkgllm.files import cannot, write_atomically
from pkgllm.pipeline import train as jobs
from pkgllm.pipeline.assistant.pie_cases import PieCase, domain_case, film_case
from pkgllm.pipeline.assistant.pie_measures import K, measure_case
from pkgllm.pipeline.build import check_room, make_queries, populate, read_corpus
from pkgllm.pipeline.evaluation.comparison import PERMUTATIONS
from pkgllm.pipeline.evaluation.ranking import data_notes, run_notes, run_title
from pkgllm.pipeline.evaluation.scorers import training_likes
from pkgllm.pipeline.recommender import TrainedModel, open_recommender
from pkgllm.pipeline.run_record import LIKED, check_same_split, read_liked
from pkgllm.progress import Progress
from pkgllm.report.pie import draw_pie, pie_document
from pkgllm.report.to_markdown import markdown
from pkgllm.runs.folder import RunFolder

Scale = Literal["small-world", "redial-mini"]
PRESETS: dict[Scale, str] = {"small-world": "quickstart.yaml", "redial-mini": "redial-mini.yaml"}


@dataclass(frozen=True, slots=True)
class PieReport:
    """What was found, and where it was written."""

    folder: Path
    results: dict[str, Any]


def reproduce_pie(
    scale: Scale, output: Path, progress: Progress, *, adapter: Path | None = None
) -> PieReport:
    """Recommend to everybody in a bubble under the three strategies, and write table and plot.

    Without an adapter the scale's preset is trained into ``OUTPUT/run``; a run that was stopped
    there goes on, and one that is finished is used. The same run gives the same bytes.

    Args:
        scale: Which preset is trained.
        output: Folder for the table, made if absent.
        progress: Is told how far the work is.
        adapter: The folder of a finished run to use instead.

    Raises:
        RunError: If the run is not finished, or nothing can be written.
        DataError: If nobody is in a bubble, or the data are not those of the run.
        PkgllmError: If anything else that is needed cannot be used.
    """
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot("make", output, error) from error
    run = adapter or _trained(scale, output / "run", progress)
    results = pie_results(run, progress)
    for form, content in draw_pie(results).items():
        write_atomically(output / f"pie.{form}", content)
    write_atomically(output / "pie.md", markdown(pie_document(results)))
    text = json.dumps(results, ensure_ascii=False, indent=2)
    # Last, since it says that the others are there.
    write_atomically(output / "pie.json", f"{text}\n")
    return PieReport(output, results)


def pie_results(run: Path, progress: Progress) -> dict[str, Any]:
    """Measure a run's own clients, and the people of the shipped domains.

    Returns:
        Values of JSON, by case.
    """
    model = open_recommender(run)
    config = model.config
    settings: dict[str, Any] = {
        "seed": config.seed,
        "resamples": config.evaluation.bootstrap_resamples,
        "permutations": PERMUTATIONS,
        "progress": progress,
    }
    films, notes = _film_case(model)
    cases = [films, *_domain_cases(model)]
    return {
        "title": run_title(config),
        "k": K,
        "cases": {case.name: measure_case(case, **settings) for case in cases},
        "notes": notes,
    }


def _trained(scale: Scale, path: Path, progress: Progress) -> Path:
    config = load_config(PRESETS[scale])
    if RunFolder(path).config.exists():
        jobs.resume(path, progress, given=config)
    else:
        jobs.train(config, path, progress)
    return path


def _film_case(model: TrainedModel) -> tuple[PieCase, list[str]]:
    config, recommender = model.config, model.recommender
    population = populate(config, read_corpus(config))
    check_same_split(model.run, population)
    queries = make_queries(config, population)
    likes = training_likes(read_liked(model.run.path / LIKED), recommender.catalogue)
    name = population.corpus.name
    case = film_case(name, recommender, queries, likes.counts.astype(float))
    return case, [*data_notes(population), *run_notes(config, model.run.path)]


def _domain_cases(model: TrainedModel) -> list[PieCase]:
    cases = []
    for name in SHIPPED:
        domain = read_domain(name)
        writer = model.recommender.writer.asking(domain.request)
        check_room(model.config.prompt, writer, model.base, domain.catalogue)
        recommender = Recommender(
            model.recommender.model,
            writer,
            domain.catalogue,
            max_positions=model.base.max_positions,
        )
        cases.append(domain_case(domain, recommender))
    return cases
