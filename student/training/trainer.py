"""The training loop: batches, updates, checkpoints; what a step minimises is `student.losses.objective`'s.

Everything random is a function of (seed, step) or (seed, position in the stream), so a resumed run
repeats the uninterrupted one. Writes the run's checkpoint and `metrics.parquet`; what can fail:
see `student.training.train`, and `Any2SegError` for a loss that is not finite.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from typing import Any

import numpy as np
import torch
from timm.layers.norm_act import convert_sync_batchnorm
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from pipeline.config.config import Config
from pipeline.core.device import choose_device, threads
from pipeline.core.progress import progress_bar
from pipeline.core.random_stream import RandomStream
from pipeline.core.splits import TRAIN_SPLIT
from pipeline.errors import Any2SegError
from pipeline.shards.manifest import Manifest
from pipeline.shards.sample_reader import list_samples
from pipeline.targets.prompts import resolve_prompts
from pipeline.targets.reader import TeacherSource
from pipeline.targets.views import ViewSettings
from pipeline.workspace import Workspace
from student.data.augment import Augment
from student.data.target_join import TargetJoin, open_join
from student.data.train_stream import Batch, TrainStream, loader
from student.losses.lscd import Lscd
from student.losses.objective import Objective, Reference
from student.losses.segmentation import class_weights
from student.model.input_statistics import input_specs
from student.model.student import Student
from student.model.weight_average import Ema
from student.runs.checkpoint import (
    EMA,
    load_average,
    load_checkpoint,
    load_module,
    prefixed,
    save_checkpoint,
)
from student.runs.distributed import World
from student.runs.layout import BEST, LAST
from student.runs.run import Run, reads_prompts, record_missing, steps_done
from student.training.metrics_log import Row, note, rates, read_rows, write_rows
from student.training.optimizer import Updates
from student.training.trackers import open_tracker
from student.training.validation import Validation

Pieces = tuple[Batch, ...]
ALONE = World()


def run_loop(
    config: Config,
    workspace: Workspace,
    manifest: Manifest,
    run: Run,
    *,
    progress: bool,
    live: TeacherSource | None = None,
    world: World = ALONE,
) -> tuple[int, dict[str, Any]]:
    """Train from the last checkpoint (or the start) to the last step.

    `live`: a teacher that answers on demand, in place of the cached answers. Returns the step it
    went on from; rates, and which samples lacked teacher outputs.
    """
    progress = progress and world.leads
    with threads(config.train.threads):
        trainer = Trainer(config, workspace, manifest, run, live, world)
        missing = record_missing(config, run, trainer.counts) if world.leads else ""
        if missing and progress:
            print(f"train {run.id}: {missing}", file=sys.stderr, flush=True)
        first = trainer.resume()
        title, steps = f"train {run.id}", config.train.steps - first
        tracker_name = config.train.tracker if world.leads else "none"
        with (
            closing(open_tracker(tracker_name, run, first)) as tracker,
            progress_bar(title, steps, "step", progress) as advance,
        ):
            for pieces, waited in _timed(trainer.batches(first)):
                trainer.step(pieces, waited)
                trainer.look_back()
                tracker.log(trainer.steps_done, trainer.rows[-1])
                advance(1, note(trainer.rows, first))
        if not trainer.saved:
            trainer.save()
        world.wait()
    figures = rates(trainer.rows, first)
    return first, figures | ({"missing_targets": missing} if missing else {})


class Trainer:
    """Model, losses, updates and figures of one run, as one of the processes that train it."""

    def __init__(
        self,
        config: Config,
        workspace: Workspace,
        manifest: Manifest,
        run: Run,
        live: TeacherSource | None = None,
        world: World = ALONE,
    ) -> None:
        self.config, self.run, self.world = config, run, world
        self.device = world.device(torch.device(choose_device(config.train.device)))
        self.part = world.part(config.train.batch_size, config.train.accumulate)
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
        if world.size > 1 and self.device.type == "cuda":
            # Statistics of the whole batch; on a CPU there is none such, each part has its own.
            self.model = convert_sync_batchnorm(self.model)  # type: ignore[no-untyped-call]
        self.lscd = _lscd(config, workspace, self.model, self.join)
        pixels = manifest.class_pixels(TRAIN_SPLIT)
        weights = class_weights(pixels, config.train.class_weight_power).to(self.device)
        self.objective = Objective(config, self.model, self.lscd, weights)
        self.objective.to(self.device).to(memory_format=torch.channels_last)
        self.objective.train()
        self.ema = Ema(self.model, config.train.ema) if config.train.ema else None
        if self.ema is not None:
            self.objective.reference = _answer(self.ema)
        parameters = dict(self.objective.named_parameters())
        self.updates = Updates(parameters, config.train, self.device)
        self.validation = (
            Validation(config, manifest, run, world) if config.train.validate_every else None
        )
        self.shared = world.share(self.objective)
        if config.train.compile:
            # In place, and after the average was copied: names and averages stay as they are.
            self.model.backbone.compile()
            self.model.head.compile()
        self.steps_done = 0
        self.rows: list[Row] = []
        self.saved = False

    def resume(self) -> int:
        """Go back to the last checkpoint, if there is one; returns the steps already done."""
        checkpoint = load_checkpoint(self.run)
        if checkpoint is not None:
            for part, module in self.objective.named_children():
                load_module(self.run, part, module, checkpoint)
            self.updates.load(checkpoint)
            if self.ema is not None:
                load_average(self.run, self.ema, checkpoint)
            self.steps_done = checkpoint.step
            self.rows = [row for row in read_rows(self.run) if row["step"] <= self.steps_done]
            # A killed run may have left the state file one checkpoint behind.
            self.saved = steps_done(self.run) == self.steps_done
        return self.steps_done

    def batches(self, first: int) -> Iterator[Pieces]:
        """This process's pieces of the batch of each step still to do."""
        train, world = self.config.train, self.world
        refs, specs = self.stream_parts
        stream = TrainStream(
            refs=refs,
            specs=specs,
            batch_size=self.part,
            seed=self.config.seed,
            start=first,
            stop=train.steps,
            augment=Augment.of(train),
            join=self.join,
            views=ViewSettings.of(self.config),
            parts=world.size * train.accumulate,
            mine=[world.rank * train.accumulate + piece for piece in range(train.accumulate)],
        )
        made = iter(loader(stream, train.workers))
        return zip(*[made] * train.accumulate, strict=True)

    def step(self, pieces: Sequence[Batch], waited_s: float) -> None:
        """One update of the weights and one row of figures."""
        started = time.perf_counter()
        _seed(self.config.seed, self.steps_done, self.world.rank)
        lr = self.updates.start(self.steps_done)
        with self._apart():
            found = [self._piece(piece, len(pieces)) for piece in pieces[:-1]]
        found.append(self._piece(pieces[-1], len(pieces)))
        norm = self.updates.apply()
        self.world.average_(self._statistics())
        if self.ema is not None:
            self.ema.update(self.model)
        self.steps_done += 1
        self.saved = False
        row = self._figures(found, norm)
        self._check_finite(row["loss"])
        spent = time.perf_counter() - started
        self.rows.append(row | {"lr": lr, "step_s": spent, "data_s": waited_s})

    def _apart(self) -> AbstractContextManager[None]:
        """Where gradients are not averaged yet: one exchange a step is enough."""
        shared = self.shared
        return shared.no_sync() if isinstance(shared, DistributedDataParallel) else nullcontext()

    def _piece(self, batch: Batch, count: int) -> dict[str, Tensor]:
        """Add the gradients of one of `count` pieces; its loss and terms."""
        loss, terms = self.shared(batch.to(self.device))
        self.updates.backward(loss / count)
        return {"loss": loss.detach(), **terms}

    def _statistics(self) -> list[Tensor]:
        """What each process counts over its own samples: batch norms' statistics, the running IoU."""
        return [
            buffer
            for name, buffer in self.objective.named_buffers()
            if name.startswith("running.") or name.endswith(("running_mean", "running_var"))
        ]

    def _figures(self, found: Sequence[dict[str, Tensor]], norm: dict[str, Tensor]) -> Row:
        """Means over the step's pieces and the processes."""
        means = torch.stack([torch.stack(list(piece.values())) for piece in found]).mean(0)
        means = self.world.mean(means)
        # One transfer from the device for all of them.
        values = torch.cat([means, *(value[None] for value in norm.values())]).tolist()
        return {"step": self.steps_done} | dict(zip((*found[0], *norm), values, strict=True))

    def look_back(self) -> None:
        """Score and save what is due after the last step."""
        train, step = self.config.train, self.steps_done
        if self.validation is not None and self.validation.due(step):
            figures = self.validation.score(self.scored)
            self.rows[-1] |= figures
            if self.validation.improves(figures):
                self._write(BEST, **figures)
        if train.keep_every and step % train.keep_every == 0:
            self._write(f"step-{step:06d}")
        if step % train.checkpoint_every == 0:
            self.save()

    @property
    def scored(self) -> Student:
        """The weights that are scored: the averaged ones, if there are."""
        return self.model if self.ema is None else self.ema.module

    def save(self) -> None:
        """Write the metrics, then the checkpoint that commits them."""
        if self.world.leads:
            write_rows(self.run, self.rows)
        self._write(LAST)
        self.saved = True

    def _write(self, name: str, **figures: float) -> None:
        if not self.world.leads:
            return
        tensors = self.objective.state_dict() | self.updates.tensors()
        if self.ema is not None:
            tensors |= prefixed(EMA, self.ema.tensors())
        save_checkpoint(self.run, self.steps_done, tensors, name, **figures)

    def _check_finite(self, loss: float) -> None:
        if not np.isfinite(loss):
            raise Any2SegError(
                f"{self.run.id}: the loss of step {self.steps_done} is {loss}. The last checkpoint "
                f"stays; lower train.lr (now {self.config.train.lr}) and train again."
            )


def _seed(seed: int, step: int, rank: int) -> None:
    """Let what a step draws (dropout) depend on nothing that came before it."""
    words = np.random.SeedSequence([seed, RandomStream.TRAINING_STEP, step, rank])
    torch.manual_seed(int(words.generate_state(1)[0]))


def _answer(ema: Ema[Student]) -> Reference:
    """The averaged student's logits of all modalities of a batch."""
    model = ema.module

    def answer(batch: Batch) -> Tensor:
        return model.logits(model.features(batch.inputs, batch.present), batch.present)

    return answer


def _lscd(config: Config, workspace: Workspace, model: Student, join: TargetJoin | None) -> Lscd:
    prompts = None
    if reads_prompts(config):
        prompts = torch.from_numpy(resolve_prompts(config, workspace).class_embedding())
    elif config.student.lscd.intra:
        prompts = torch.eye(model.head.classify.out_channels)
    width = join.source.dim if join else None
    return Lscd(config.student.lscd, model.backbone.channels, prompts, width)


def _timed(batches: Iterator[Pieces]) -> Iterator[tuple[Pieces, float]]:
    """Each step's pieces with the seconds that they were waited for."""
    while True:
        started = time.perf_counter()
        pieces = next(batches, None)
        if pieces is None:
            return
        yield pieces, time.perf_counter() - started
