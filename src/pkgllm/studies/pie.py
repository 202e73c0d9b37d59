"""``pkgllm reproduce pie``: do people leave their bubble when the graph is adapted?"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pkgllm.assistant.recommend import Recommender
from pkgllm.baselines.likes import TrainingLikes
from pkgllm.config.load import load_config
from pkgllm.corpora.domains import SHIPPED, read_domain
from pkgllm.corpora.population import Population
from pkgllm.files import make_folder, write_atomically
from pkgllm.pipeline import train as jobs
from pkgllm.pipeline.build import check_room, make_queries, populate, read_corpus
from pkgllm.pipeline.ranking import run_notes, run_title
from pkgllm.pipeline.recommender import TrainedModel, open_recommender
from pkgllm.pipeline.run_record import check_same_split, read_liked
from pkgllm.progress import Progress
from pkgllm.report.evaluation import data_notes
from pkgllm.report.pie import draw_pie, pie_document
from pkgllm.report.to_markdown import markdown
from pkgllm.runs.folder import RunFolder
from pkgllm.studies.pie_cases import PieCase, domain_case, film_case
from pkgllm.studies.pie_measures import K, measure_case

Scale = Literal["small-world", "redial-mini"]
PRESETS: dict[Scale, str] = {"small-world": "quickstart.yaml", "redial-mini": "redial-mini.yaml"}


def reproduce_pie(
    scale: Scale, output: Path, progress: Progress, *, adapter: Path | None = None
) -> dict[str, Any]:
    """Recommend to everybody in a bubble under the three strategies, and write table and plot.

    Without an adapter the scale's preset is trained into ``OUTPUT/run``; a run that was stopped
    there goes on, and one that is finished is used. The same run gives the same bytes.

    Args:
        scale: Which preset is trained.
        output: Folder for the table, made if absent.
        progress: Shows the work in hand.
        adapter: The folder of a finished run to use instead.

    Returns:
        What ``pie.json`` holds.

    Raises:
        RunError: If the run is not finished, or nothing can be written.
        DataError: If no client is in a bubble, or the data are not those of the run.
        PkgllmError: If anything else that is needed cannot be used.
    """
    make_folder(output, parents=True)
    results = pie_results(adapter or _trained(scale, output / "run", progress), progress)
    for form, content in draw_pie(results).items():
        write_atomically(output / f"pie.{form}", content)
    write_atomically(output / "pie.md", markdown(pie_document(results)))
    text = json.dumps(results, ensure_ascii=False, indent=2)
    # Last, since it says that the others are there.
    write_atomically(output / "pie.json", f"{text}\n")
    return results


def pie_results(run: Path, progress: Progress) -> dict[str, Any]:
    """Measure a run's own clients, and the people of the shipped domains, as JSON by case."""
    model = open_recommender(run)
    config = model.config
    population = populate(config, read_corpus(config))
    check_same_split(model.run, population)
    resamples = config.evaluation.bootstrap_resamples
    return {
        "title": run_title(config),
        "k": K,
        "cases": {
            case.name: measure_case(case, progress, seed=config.seed, resamples=resamples)
            for case in (_film_case(model, population), *_domain_cases(model))
        },
        "notes": [*data_notes(population), *run_notes(config, model.run.path)],
    }


def _trained(scale: Scale, path: Path, progress: Progress) -> Path:
    config = load_config(PRESETS[scale])
    if RunFolder(path).config.exists():
        jobs.resume(path, progress, expected=config)
    else:
        jobs.train(config, path, progress)
    return path


def _film_case(model: TrainedModel, population: Population) -> PieCase:
    queries = make_queries(model.config, population)
    likes = TrainingLikes.within(model.recommender.catalogue, read_liked(model.run.path))
    name = population.corpus.name
    return film_case(name, model.recommender, queries, likes.counts.astype(float))


def _domain_cases(model: TrainedModel) -> Iterator[PieCase]:
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
        yield domain_case(domain, recommender)
