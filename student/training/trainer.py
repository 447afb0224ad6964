"""The training loop: batches, optimizer steps, checkpoints. The loss is `student.losses.objective`.

Everything random is a function of (seed, step) or (seed, position in the stream), so a resumed run
repeats the uninterrupted one. Writes the run's checkpoints and `metrics.parquet`. Raises what
`student.training.train` lists, and `Any2SegError` for a loss that is not finite.

Legend: M modalities, D teacher width.
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

from pipeline.core.device import choose_device, threads
from pipeline.core.progress import progress_bar
from pipeline.core.random_stream import RandomStream
from pipeline.core.splits import TRAIN_SPLIT
from pipeline.errors import Any2SegError
from pipeline.shards.sample_reader import list_samples
from pipeline.targets.reader import TeacherSource
from pipeline.targets.views import ViewConfig
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
from student.runs.inputs import RunInputs
from student.runs.layout import BEST, LAST
from student.runs.run import record_missing, steps_done
from student.training.metrics_log import Row, note, rates, read_rows, write_rows
from student.training.optimizer import OptimizerStep
from student.training.trackers import open_tracker
from student.training.validation import Validation

MicroBatches = tuple[Batch, ...]
"""One process's part of a step's batch, in `train.accumulate` micro-batches."""
ALONE = World()


def run_loop(
    inputs: RunInputs,
    *,
    progress: bool,
    live: TeacherSource | None = None,
    world: World = ALONE,
) -> tuple[int, dict[str, Any]]:
    """Train from the last checkpoint (or the start) to the last step.

    `live`: a teacher that encodes on demand, in place of the cached targets. Returns the step that
    training resumed from; and the rates, and which samples lacked teacher targets.
    """
    config, run = inputs.config, inputs.run
    progress = progress and world.is_main_process
    with threads(config.train.threads):
        trainer = Trainer(inputs, live, world)
        missing = record_missing(config, run, trainer.counts) if world.is_main_process else ""
        if missing and progress:
            print(f"train {run.id}: {missing}", file=sys.stderr, flush=True)
        first = trainer.resume()
        title, steps = f"train {run.id}", config.train.steps - first
        tracker_name = config.train.tracker if world.is_main_process else "none"
        with (
            closing(open_tracker(tracker_name, run, first)) as tracker,
            progress_bar(title, steps, "step", progress) as advance,
        ):
            for micro_batches, waited_s in _timed(trainer.batches(first)):
                trainer.step(micro_batches, waited_s)
                trainer.after_step()
                tracker.log(trainer.steps_done, trainer.rows[-1])
                advance(1, note(trainer.rows, first))
        if not trainer.saved:
            trainer.save()
        world.barrier()
    metrics = rates(trainer.rows, first)
    return first, metrics | ({"missing_targets": missing} if missing else {})


class Trainer:
    """Model, losses, optimizer and metrics of one run, as one of the processes that train it."""

    def __init__(
        self, inputs: RunInputs, live: TeacherSource | None = None, world: World = ALONE
    ) -> None:
        config, manifest = inputs.config, inputs.manifest
        self.config, self.run, self.world = config, inputs.run, world
        self.device = world.device(torch.device(choose_device(config.train.device)))
        self.local_batch_size = world.local_batch_size(
            config.train.batch_size, config.train.accumulate
        )
        # Before anything draws: initial weights are a function of the seed alone.
        torch.manual_seed(config.seed)
        self.specs = config.specs()
        samples = list_samples(manifest, TRAIN_SPLIT, tuple(self.specs))
        self.join, self.refs, self.counts = open_join(inputs, samples, live)
        self.model = _build_student(inputs, world, self.device)
        self.lscd = _build_lscd(inputs, self.model, self.join)
        weights_K = class_weights(
            manifest.class_pixels(TRAIN_SPLIT), config.train.class_weight_power
        )
        self.objective = Objective(config, self.model, self.lscd, weights_K.to(self.device))
        self.objective.to(self.device).to(memory_format=torch.channels_last)
        self.objective.train()
        self.ema = Ema(self.model, config.train.ema) if config.train.ema else None
        if self.ema is not None:
            self.objective.reference = _averaged_logits(self.ema)
        # Named before DDP wraps them: checkpoints do not depend on the number of processes.
        parameters = dict(self.objective.named_parameters())
        self.optimizer = OptimizerStep(parameters, config.train, self.device)
        self.validation = Validation(inputs, world) if config.train.validate_every else None
        self.ddp_objective = world.wrap_ddp(self.objective)
        if config.train.compile:
            # In place, and after the average was copied: names and averages stay as they are.
            self.model.backbone.compile()
            self.model.head.compile()
        self.steps_done = 0
        self.rows: list[Row] = []
        self.saved = False

    def resume(self) -> int:
        """Load the last checkpoint, if there is one; returns the number of steps already done."""
        checkpoint = load_checkpoint(self.run)
        if checkpoint is not None:
            for part, module in self.objective.named_children():
                load_module(self.run, part, module, checkpoint)
            self.optimizer.load(checkpoint)
            if self.ema is not None:
                load_average(self.run, self.ema, checkpoint)
            self.steps_done = checkpoint.step
            self.rows = [row for row in read_rows(self.run) if row["step"] <= self.steps_done]
            # A killed run may have left the state file one checkpoint behind.
            self.saved = steps_done(self.run) == self.steps_done
        return self.steps_done

    def batches(self, first: int) -> Iterator[MicroBatches]:
        """This process's micro-batches of each step still to do."""
        train_config, world = self.config.train, self.world
        accumulate = train_config.accumulate
        stream = TrainStream(
            refs=self.refs,
            specs=self.specs,
            batch_size=self.local_batch_size,
            seed=self.config.seed,
            start=first,
            stop=train_config.steps,
            augment=Augment.of(train_config),
            join=self.join,
            views=ViewConfig.of(self.config),
            parts=world.size * accumulate,
            mine=[world.rank * accumulate + number for number in range(accumulate)],
        )
        micro_batches = iter(loader(stream, train_config.workers))
        # The same iterator `accumulate` times: zip takes so many micro-batches for each step.
        return zip(*[micro_batches] * accumulate, strict=True)

    def step(self, micro_batches: Sequence[Batch], waited_s: float) -> None:
        """One update of the weights and one row of metrics."""
        started = time.perf_counter()
        _seed(self.config.seed, self.steps_done, self.world.rank)
        lr = self.optimizer.start(self.steps_done)
        count = len(micro_batches)
        with self._no_sync():
            losses = [self._backward_microbatch(batch, count) for batch in micro_batches[:-1]]
        losses.append(self._backward_microbatch(micro_batches[-1], count))
        norm = self.optimizer.apply()
        self.world.average_(self._local_statistics())
        if self.ema is not None:
            self.ema.update(self.model)
        self.steps_done += 1
        self.saved = False
        row = self._reduce_metrics(losses, norm)
        self._check_finite(row["loss"])
        step_s = time.perf_counter() - started
        self.rows.append(row | {"lr": lr, "step_s": step_s, "data_s": waited_s})

    def _no_sync(self) -> AbstractContextManager[None]:
        """Where DDP does not average gradients yet: one all-reduce a step is enough."""
        ddp = self.ddp_objective
        return ddp.no_sync() if isinstance(ddp, DistributedDataParallel) else nullcontext()

    def _backward_microbatch(self, batch: Batch, count: int) -> dict[str, Tensor]:
        """Add the gradients of one of `count` micro-batches; returns its loss and terms."""
        loss, terms = self.ddp_objective(batch.to(self.device))
        self.optimizer.backward(loss / count)
        return {"loss": loss.detach(), **terms}

    def _local_statistics(self) -> list[Tensor]:
        """Buffers that each process updates from its own samples: batch norms', the running IoU."""
        return [
            buffer
            for name, buffer in self.objective.named_buffers()
            if name.startswith("running.") or name.endswith(("running_mean", "running_var"))
        ]

    def _reduce_metrics(self, losses: Sequence[dict[str, Tensor]], norm: dict[str, Tensor]) -> Row:
        """Means over the step's micro-batches and the processes."""
        means = torch.stack([torch.stack(list(terms.values())) for terms in losses]).mean(0)
        means = self.world.mean(means)
        # One transfer from the device for all of them.
        values = torch.cat([means, *(value[None] for value in norm.values())]).tolist()
        return {"step": self.steps_done} | dict(zip((*losses[0], *norm), values, strict=True))

    def after_step(self) -> None:
        """Validate and save whatever is due after the last step."""
        train_config, step = self.config.train, self.steps_done
        if self.validation is not None and self.validation.due(step):
            metrics = self.validation.score(self.scored)
            self.rows[-1] |= metrics
            if self.validation.improves(metrics):
                self._write(BEST, **metrics)
        if train_config.keep_every and step % train_config.keep_every == 0:
            self._write(f"step-{step:06d}")
        if step % train_config.checkpoint_every == 0:
            self.save()

    @property
    def scored(self) -> Student:
        """The model that is evaluated: the averaged one with `train.ema`."""
        return self.model if self.ema is None else self.ema.module

    def save(self) -> None:
        """Write the metrics, then the checkpoint that commits them."""
        if self.world.is_main_process:
            write_rows(self.run, self.rows)
        self._write(LAST)
        self.saved = True

    def _write(self, name: str, **metrics: float) -> None:
        if not self.world.is_main_process:
            return
        tensors = self.objective.state_dict() | self.optimizer.tensors()
        if self.ema is not None:
            tensors |= prefixed(EMA, self.ema.tensors())
        save_checkpoint(self.run, self.steps_done, tensors, name, **metrics)

    def _check_finite(self, loss: float) -> None:
        if not np.isfinite(loss):
            raise Any2SegError(
                f"{self.run.id}: the loss of step {self.steps_done} is {loss}. The last checkpoint "
                f"stays; lower train.lr (now {self.config.train.lr}) and train again."
            )


def _seed(seed: int, step: int, rank: int) -> None:
    """Make what a step draws (dropout) independent of everything before it."""
    words = np.random.SeedSequence([seed, RandomStream.TRAINING_STEP, step, rank])
    torch.manual_seed(int(words.generate_state(1)[0]))


def _build_student(inputs: RunInputs, world: World, device: torch.device) -> Student:
    config, manifest = inputs.config, inputs.manifest
    student_config = config.student
    if inputs.run.checkpoint.exists():
        # It holds every weight: the pretrained ones need not exist any more.
        student_config = student_config.model_copy(update={"weights": "none"})
    model = Student(student_config, input_specs(config, manifest), len(manifest.classes))
    if world.size > 1 and device.type == "cuda":
        # Statistics of the whole batch; torch has none for CPUs, where each process has its own.
        return convert_sync_batchnorm(model)  # type: ignore[no-any-return, no-untyped-call]
    return model


def _build_lscd(inputs: RunInputs, model: Student, join: TargetJoin | None) -> Lscd:
    lscd_config = inputs.config.student.lscd
    class_prompts_KD = None
    if inputs.prompts is not None:
        class_prompts_KD = torch.from_numpy(inputs.prompts.class_embedding())
    elif lscd_config.intra:
        class_prompts_KD = torch.eye(model.head.classify.out_channels)
    width = join.source.dim if join else None
    return Lscd(lscd_config, model.backbone.channels, class_prompts_KD, width)


def _averaged_logits(ema: Ema[Student]) -> Reference:
    """The averaged student's logits of all modalities of a batch."""
    model = ema.module

    def logits(batch: Batch) -> Tensor:
        return model.logits(model.features(batch.inputs, batch.present), batch.present)

    return logits


def _timed(batches: Iterator[MicroBatches]) -> Iterator[tuple[MicroBatches, float]]:
    """Each step's micro-batches with the seconds that training waited for them."""
    while True:
        started = time.perf_counter()
        micro_batches = next(batches, None)
        if micro_batches is None:
            return
        yield micro_batches, time.perf_counter() - started
