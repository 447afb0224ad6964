"""Artifacts of a run in Prefect's UI: progress, coverage, scores, predictions.

Every artifact has a key that stays the same from run to run (`<config name>-...`), so that the UI shows
its history. Prefect stores them; the workspace does not depend on them.
"""

from __future__ import annotations

import base64
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from prefect.artifacts import (
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)

from flows.planning.status import report_path
from flows.redact import redacted
from flows.report.prediction_sheet import prediction_sheet
from flows.report.score_lines import joined, missing_lines, noise_lines, setting
from pipeline.config.config import Config
from pipeline.config.load import rows
from pipeline.core.units_text import as_percent
from pipeline.errors import MissingTarget
from pipeline.shards.manifest import Manifest
from pipeline.storage.files import read_json
from pipeline.targets.lookup import resolve
from pipeline.workspace import Workspace
from student.runs.inputs import identify

if TYPE_CHECKING:
    from teacher.encoding.units import Unit


def artifact_key(config: Config, what: str) -> str:
    """`<config name>-<what>` reduced to the characters that Prefect allows."""
    return re.sub(r"[^a-z0-9]+", "-", f"{config.name}-{what}".lower()).strip("-")


class PassProgress:
    """One progress artifact for each modality: the percentage of its shards that have embeddings."""

    def __init__(self, config: Config, num_shards: int, units: Sequence[Unit]) -> None:
        self._num_shards = num_shards
        self._missing = _targets(units)
        self._ids: dict[str, Any] = {
            name: create_progress_artifact(
                progress=self._percent(name),
                key=artifact_key(config, f"precompute-{name}"),
                description=f"Shards with {name} embeddings, of {num_shards}",
            )
            for name in config.modalities
        }

    def done(self, units: Sequence[Unit]) -> None:
        """Count these units as committed."""
        targets = _targets(units)
        self._missing.subtract(targets)
        for name in targets:
            update_progress_artifact(self._ids[name], progress=self._percent(name))

    def _percent(self, name: str) -> float:
        return 100.0 * (1.0 - self._missing[name] / self._num_shards)


def _targets(units: Iterable[Unit]) -> Counter[str]:
    return Counter(name for unit in units for name in unit.modalities)


def show_coverage(config: Config, workspace: Workspace) -> None:
    """A table: samples per split; per modality the shards with current, missing and stale embeddings."""
    manifest = Manifest.load(workspace.dataset(config))
    table = [*_sample_rows(manifest), *_target_rows(config, workspace, manifest)]
    create_table_artifact(
        table=table,
        key=artifact_key(config, "coverage"),
        description=f"{manifest.num_samples} samples in {len(manifest.all_shards)} shards",
    )


def _sample_rows(manifest: Manifest) -> Iterator[dict[str, Any]]:
    counts: Counter[str] = Counter()
    for shard in manifest.all_shards:
        counts[shard.split] += shard.num_rows
    for split, num_samples in counts.items():
        yield {"what": f"samples of {split}", "there": num_samples, "missing": 0, "stale": 0}


def _target_rows(
    config: Config, workspace: Workspace, manifest: Manifest
) -> Iterator[dict[str, Any]]:
    for name in config.modalities:
        try:
            coverage = resolve(config, workspace, name).coverage(manifest.all_shards)
        except MissingTarget:
            counts = {"there": 0, "missing": len(manifest.all_shards), "stale": 0}
        else:
            counts = {
                "there": coverage.committed,
                "missing": coverage.missing,
                "stale": coverage.stale,
            }
        yield {"what": f"shards with {name} embeddings", **counts}


def show_scores(config: Config, workspace: Workspace) -> None:
    """Markdown: mIoU of all subsets of the modalities for every row, and a link to the report."""
    evaluations = {
        name: read_json(identify(row, workspace).evaluation) for name, row in rows(config).items()
    }
    page = report_path(config, workspace)
    create_markdown_artifact(
        markdown=redacted(summary(config.name, evaluations, str(page))),
        key=artifact_key(config, "scores"),
        description="mIoU of every subset of the modalities",
    )


def summary(title: str, evaluations: Mapping[str, Mapping[str, Any]], page: str) -> str:
    """The summary's markdown; scores in per cent, the rows of the config side by side.

    Ends with all, mean and worst; with EMM, RMM and NM for the rows that were scored for robustness.
    """
    names = list(evaluations)
    link = page if "://" in page else f"file://{page}"
    lines = [f"# {title}", "", f"Report: [{page}]({link})", ""]
    first = evaluations[names[0]]
    lines += [f"mIoU in %: {setting(first)}.", ""]
    lines += ["| modalities | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    scores = [
        {tuple(s["modalities"]): s["miou"] for s in e["subsets"]} for e in evaluations.values()
    ]
    for subset in scores[0]:
        cells = [f"{100 * row[subset]:.1f}" if subset in row else "-" for row in scores]
        lines.append(f"| {', '.join(subset)} | " + " | ".join(cells) + " |")
    for name, cells in {
        "all": [as_percent(e["all"]) for e in evaluations.values()],
        "mean": [as_percent(e["mean"]) for e in evaluations.values()],
        "worst": [_worst(e) for e in evaluations.values()],
    }.items():
        lines.append(f"| **{name}** | " + " | ".join(f"**{cell}**" for cell in cells) + " |")
    return "\n".join([*lines, *_robust_lines(evaluations)])


def _worst(scores: Mapping[str, Any]) -> str:
    return f"{as_percent(scores['worst']['miou'])} ({joined(scores['worst']['modalities'])})"


def _robust_lines(evaluations: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """A table of averages over the subsets (EMM, RMM) and of scores under noise (NM), if any."""
    rows = {name: scores for name, scores in evaluations.items() if scores["robustness"]}
    if not rows:
        return
    yield from ("", "| robustness | " + " | ".join(rows) + " |", "|---" * (len(rows) + 1) + "|")
    missing = zip(*map(missing_lines, rows.values()), strict=True)
    noise = zip(*map(noise_lines, rows.values()), strict=True)
    for lines in missing:
        cells = [as_percent(line.averages[0]) for line in lines]
        yield f"| {lines[0].name}: {lines[0].protocol} | " + " | ".join(cells) + " |"
    for lines in noise:
        cells = [as_percent(line.miou) for line in lines]
        yield f"| {lines[0].name}: {lines[0].protocol} | " + " | ".join(cells) + " |"


def show_predictions(config: Config, workspace: Workspace) -> None:
    """Markdown with one image: of some samples the first sensor, the label and the prediction."""
    sheet = prediction_sheet(config, workspace)
    if sheet is not None:
        # No image artifact: Prefect prints its whole data URL below the image.
        text = base64.b64encode(sheet).decode("ascii")
        first = next(iter(config.modalities))
        create_markdown_artifact(
            markdown=f"![{first}, label, prediction](data:image/png;base64,{text})",
            key=artifact_key(config, "predictions"),
            description=f"{first}, label, prediction from all modalities",
        )
