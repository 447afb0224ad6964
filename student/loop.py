"""The training loop: batches, AdamW, checkpoints; what a step minimises is `student.objective`'s.

Everything random is a function of (seed, step) or (seed, position in the stream), so a resumed run
repeats the uninterrupted one. Writes the run's checkpoint and `metrics.parquet`; what can fail:
see `student.train`, and `Any2SegError` for a loss that is not finite.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import nn

from pipeline.config import Config
from pipeline.config_student import TrainConfig
from pipeline.errors import Any2SegError
from pipeline.files import write_atomic
from pipeline.manifest import Manifest, read_table
from pipeline.progress import progress_bar
from pipeline.prompts_store import resolve_prompts
from pipeline.teacher_source import TeacherSource
from pipeline.views import ViewSettings
from pipeline.workspace import Workspace
from student.centre import mean_embeddings
from student.checkpoint import (
    load_checkpoint,
    load_module,
    load_optimizer,
    model_tensors,
    optimizer_tensors,
    save_checkpoint,
)
from student.device import pick_device, threads
from student.join import TargetJoin, open_join
from student.losses import class_weights
from student.lscd import Lscd
from student.model import Student
from student.normalise import input_specs
from student.objective import TERMS, Objective
from student.run import Run, reads_prompts, record_missing, steps_done
from student.samples import list_samples
from student.stream import Augment, Batch, TrainStream, loader

TRAIN_SPLIT = "train"
POLY_POWER = 0.9
COLUMNS = ("loss", *TERMS, "lr", "step_s", "data_s")
METRICS_SCHEMA = pa.schema([("step", pa.int64()), *((name, pa.float64()) for name in COLUMNS)])

Row = dict[str, float]


def run_loop(
    config: Config,
    workspace: Workspace,
    manifest: Manifest,
    run: Run,
    *,
    progress: bool,
    live: TeacherSource | None = None,
) -> tuple[int, dict[str, Any]]:
    """Train from the last checkpoint (or the start) to the last step.

    `live`: a teacher that answers on demand, in place of the cached answers. Returns the step it
    went on from; rates, and which samples lacked teacher outputs.
    """
    with threads(config.train.threads):
        trainer = Trainer(config, workspace, manifest, run, live)
        missing = record_missing(config, run, trainer.counts)
        if missing and progress:
            print(f"train {run.id}: {missing}", file=sys.stderr, flush=True)
        first = trainer.resume()
        steps = config.train.steps
        title = f"train {run.id}"
        with progress_bar(title, steps - first, "step", progress) as advance:
            for batch, waited in _timed(trainer.batches(first)):
                trainer.step(batch, waited)
                advance(1)
                if trainer.steps_done % config.train.checkpoint_every == 0:
                    trainer.save()
        if not trainer.saved:
            trainer.save()
    return first, trainer.figures(first) | ({"missing_targets": missing} if missing else {})


class Trainer:
    """Model, losses, optimiser and metrics of one run."""

    def __init__(
        self,
        config: Config,
        workspace: Workspace,
        manifest: Manifest,
        run: Run,
        live: TeacherSource | None = None,
    ) -> None:
        self.config = config
        self.run = run
        self.device = pick_device(config.train.device)
        torch.manual_seed(config.seed)
        specs = config.specs()
        samples = list_samples(manifest, TRAIN_SPLIT, tuple(specs))
        self.join, refs, self.counts = open_join(config, workspace, samples, live)
        self.stream_parts = (refs, specs)
        student = config.student
        if run.checkpoint.exists():
            # It holds every weight: the pretrained ones need not be there any more.
            student = student.model_copy(update={"weights": "none"})
        self.model = Student(student, input_specs(config, manifest), len(manifest.classes))
        self.lscd = _lscd(config, workspace, self.model, self.join)
        if self.lscd.centre_MD is not None and self.join and not run.checkpoint.exists():
            shards = manifest.shards(TRAIN_SPLIT)
            means = mean_embeddings(self.join.source, shards, self.model.modalities)
            self.lscd.centre_MD.copy_(means)
        for module in (self.model, self.lscd):
            module.to(self.device).to(memory_format=torch.channels_last)
            module.train()
        pixels = manifest.class_pixels(TRAIN_SPLIT)
        weights = class_weights(pixels, config.train.class_weight_power).to(self.device)
        self.objective = Objective(config, self.model, self.lscd, weights)
        self.parameters = {
            f"{part}.{name}": parameter
            for part, module in (("model", self.model), ("lscd", self.lscd))
            for name, parameter in module.named_parameters()
        }
        self.optimizer = _optimizer(list(self.parameters.values()), config.train)
        self.steps_done = 0
        self.rows: list[Row] = []
        self.saved = False

    def resume(self) -> int:
        """Go back to the last checkpoint, if there is one; returns the steps already done."""
        checkpoint = load_checkpoint(self.run)
        if checkpoint is not None:
            load_module(self.run, "model", self.model, checkpoint)
            load_module(self.run, "lscd", self.lscd, checkpoint)
            load_module(self.run, "running", self.objective.running, checkpoint)
            load_optimizer(self.optimizer, self.parameters, checkpoint)
            torch.set_rng_state(checkpoint.part("rng")["torch"])
            self.steps_done = checkpoint.step
            self.rows = [row for row in _read_metrics(self.run) if row["step"] <= self.steps_done]
            # A killed run may have left the state file one checkpoint behind.
            self.saved = steps_done(self.run) == self.steps_done
        return self.steps_done

    def batches(self, first: int) -> Iterator[Batch]:
        """The batches of the steps still to do."""
        train = self.config.train
        refs, specs = self.stream_parts
        stream = TrainStream(
            refs=refs,
            specs=specs,
            batch_size=train.batch_size,
            seed=self.config.seed,
            start=first,
            stop=train.steps,
            augment=Augment(train.crop_px, train.flip),
            join=self.join,
            views=ViewSettings.of(self.config),
        )
        return iter(loader(stream, train.workers))

    def step(self, batch: Batch, waited_s: float) -> None:
        """One update of the weights and one row of metrics."""
        started = time.perf_counter()
        lr = learning_rate(self.config.train, self.steps_done)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.zero_grad(set_to_none=True)
        terms = self.objective.terms(batch.to(self.device))
        loss = self.objective.total(terms)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.steps_done += 1
        self.saved = False
        values = torch.stack([loss.detach(), *(v.detach() for v in terms.values())]).tolist()
        self._check_finite(values[0])
        row = dict(zip(("loss", *terms), values, strict=True))
        spent = time.perf_counter() - started
        self.rows.append(
            {"step": self.steps_done} | row | {"lr": lr, "step_s": spent, "data_s": waited_s}
        )

    def save(self) -> None:
        """Write the metrics, then the checkpoint that commits them."""
        _write_metrics(self.run, self.rows)
        tensors = (
            model_tensors("model", self.model)
            | model_tensors("lscd", self.lscd)
            | model_tensors("running", self.objective.running)
            | optimizer_tensors(self.optimizer, self.parameters)
            | {"rng.torch": torch.get_rng_state()}
        )
        save_checkpoint(self.run, self.steps_done, tensors)
        self.saved = True

    def figures(self, first: int) -> Row:
        """Rates over the steps that this call did."""
        rows = [row for row in self.rows if row["step"] > first]
        data_s = sum(row["data_s"] for row in rows)
        total_s = data_s + sum(row["step_s"] for row in rows)
        return {
            "last_loss": self.rows[-1]["loss"],
            "steps_per_s": len(rows) / total_s if rows else 0.0,
            "data_wait_share": data_s / total_s if rows else 0.0,
        }

    def _check_finite(self, loss: float) -> None:
        if not np.isfinite(loss):
            raise Any2SegError(
                f"{self.run.id}: the loss of step {self.steps_done} is {loss}. The last checkpoint "
                f"stays; lower train.lr (now {self.config.train.lr}) and train again."
            )


def learning_rate(train: TrainConfig, step: int) -> float:
    """Linear warm-up times polynomial decay (power 0.9) at a step, counted from 0."""
    warm = min(1.0, (step + 1) / train.warmup_steps) if train.warmup_steps else 1.0
    return float(train.lr * warm * (1 - step / train.steps) ** POLY_POWER)


def _optimizer(parameters: list[nn.Parameter], train: TrainConfig) -> torch.optim.AdamW:
    """AdamW that decays matrices and kernels, and leaves biases and norms alone."""
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": train.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=train.lr, fused=True)


def _lscd(config: Config, workspace: Workspace, model: Student, join: TargetJoin | None) -> Lscd:
    prompts = None
    if reads_prompts(config):
        prompts = torch.from_numpy(resolve_prompts(config, workspace).class_embedding())
    width = join.source.dim if join else None
    channels = model.backbone.channels
    return Lscd(config.student.lscd, channels, prompts, width, len(model.modalities))


def _timed(batches: Iterator[Batch]) -> Iterator[tuple[Batch, float]]:
    """Each batch with the seconds that it was waited for."""
    while True:
        started = time.perf_counter()
        batch = next(batches, None)
        if batch is None:
            return
        yield batch, time.perf_counter() - started


def _read_metrics(run: Run) -> list[Row]:
    rows: list[Row] = read_table(run.metrics).to_pylist()
    return rows


def _write_metrics(run: Run, rows: list[Row]) -> None:
    complete = [{**dict.fromkeys(TERMS), **row} for row in rows]
    table = pa.Table.from_pylist(complete, schema=METRICS_SCHEMA)

    def write(file: BinaryIO) -> None:
        pq.write_table(table, file)

    write_atomic(run.metrics, write)
