"""`verify`: compare everything in the workspace with its records. Needs read access only.

    verify(config, workspace, deep=False) -> Examination

Examines the dataset of the configuration, every target store computed from it, class prompts, descriptions,
index entries, runs, and temporary files of killed writers. Without `deep` it reads records and checks that
files exist with the right length: seconds for thousands of shards. With `deep` it reads every byte and
compares it with its digest.

Work in progress of a running stage shows as findings. No findings mean: everything that exists is correct and
nothing that was started is unfinished.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from flows.integrity.finding import Finding
from flows.integrity.verify_dataset import examine_dataset, is_prepared
from flows.integrity.verify_runs import examine_run
from flows.integrity.verify_stores import (
    examine_index,
    examine_partials,
    examine_prompts,
    examine_texts,
    folders,
)
from flows.integrity.verify_targets import examine_store
from pipeline.config.config import Config
from pipeline.config.teacher import DescriptionsConfig
from pipeline.core.progress import progress_bar
from pipeline.core.splits import TRAIN_SPLIT
from pipeline.errors import Any2SegError, DatasetError
from pipeline.shards.manifest import Manifest, ShardInfo
from pipeline.storage.files import AnyPath
from pipeline.targets.descriptions import (
    SCENE,
    description_request,
    description_slots,
    descriptions_root,
    in_slot,
)
from pipeline.targets.lookup import look_up, target_request
from pipeline.workspace import Workspace

PRECOMPUTE, DESCRIBE = "precompute", "describe"
FROM_LABELS = "from_labels"


@dataclass(frozen=True, slots=True)
class Examination:
    """What was examined, and the findings."""

    findings: tuple[Finding, ...]
    examined: Mapping[str, int]
    """Number of examined `shards`, `target stores`, `prompt stores` and `runs`."""
    not_examined: tuple[str, ...] = ()
    """What could not be examined, and why."""


def verify(
    config: Config, workspace: Workspace, *, deep: bool = False, progress: bool = True
) -> Examination:
    """Examine everything that belongs to `config`, and all prompts and runs of the workspace."""
    findings = examine_dataset(config, workspace, deep=deep, progress=progress)
    try:
        shards: Sequence[ShardInfo] = Manifest.load(workspace.dataset(config)).all_shards
        notes: tuple[str, ...] = ()
    except (DatasetError, KeyError, TypeError) as error:
        shards, notes = (), (f"targets and descriptions, without a manifest: {error}",)
    stores = _StoreExamination(config, workspace, shards, deep, progress)
    if not notes:
        findings += [*stores.targets(), *stores.descriptions()]
    findings += examine_prompts(config, workspace)
    for root, stage in _indices(config, workspace):
        findings += examine_index(root, stage)
    runs = folders(workspace.runs)
    with progress_bar("verify runs", len(runs) if deep else 0, "runs", progress) as advance:
        for run in runs:
            findings += examine_run(run, deep=deep)
            advance(1, run.name)
    findings += examine_partials(workspace.root)
    examined = {
        "shards": len(shards),
        "target stores": stores.num_stores,
        "prompt stores": len(folders(workspace.prompts)),
        "runs": len(runs),
    }
    prepared = is_prepared(workspace.dataset(config))
    return Examination(tuple(findings), examined, notes if prepared else ("dataset: not prepared",))


def _indices(config: Config, workspace: Workspace) -> Iterator[tuple[AnyPath, str]]:
    yield workspace.targets(config), PRECOMPUTE
    yield workspace.prompts, PRECOMPUTE
    yield descriptions_root(config, workspace), DESCRIBE if config.descriptions else ""


@dataclass(frozen=True, slots=True)
class _Requested:
    """A store that the configuration reads: the stage that fills it, and from which shards."""

    stage: str
    shards: Sequence[ShardInfo]


class _StoreExamination:
    """The target stores of one dataset: those of images and those of descriptions."""

    def __init__(
        self,
        config: Config,
        workspace: Workspace,
        shards: Sequence[ShardInfo],
        deep: bool,
        progress: bool,
    ) -> None:
        self._config, self._workspace = config, workspace
        self._shards = shards
        self._deep, self._progress = deep, progress
        self.num_stores = 0

    def targets(self) -> Iterator[Finding]:
        """Findings about `targets/<dataset>/`."""
        root = self._workspace.targets(self._config)
        requested = _Requested(PRECOMPUTE, self._shards)
        ours = {_own_store(self._config, self._workspace, name) for name in self._config.modalities}
        yield from self._stores("verify targets", root, {path: requested for path in ours if path})

    def descriptions(self) -> Iterator[Finding]:
        """Findings about `descriptions/<dataset>/`: texts and the stores of their embeddings."""
        root = descriptions_root(self._config, self._workspace)
        requested: dict[AnyPath, _Requested] = {}
        options = self._config.descriptions
        if options is not None:
            everything = options.source != FROM_LABELS
            shards = [s for s in self._shards if everything or s.split == TRAIN_SPLIT]
            slots = description_slots(options, tuple(self._config.modalities))
            of_slot = {slot: [in_slot(shard, slot) for shard in shards] for slot in slots}
            yield from examine_texts(root, of_slot, DESCRIBE)
            for slot, its_shards in of_slot.items():
                path = _own_descriptions(self._config, self._workspace, options, slot)
                if path is not None:
                    requested[path] = _Requested(DESCRIBE, its_shards)
        yield from self._stores("verify descriptions", root, requested)

    def _stores(
        self, title: str, root: AnyPath, ours: Mapping[AnyPath, _Requested]
    ) -> Iterator[Finding]:
        stores = folders(root)
        self.num_stores += len(stores)
        total = len(stores) * len(self._shards)
        with progress_bar(title, total, "records", self._progress) as advance:
            for path in stores:
                requested = ours.get(path) or _Requested("", self._as_seen_by(path))
                yield from examine_store(
                    path, requested.shards, requested.stage, deep=self._deep, advance=advance
                )

    def _as_seen_by(self, store: AnyPath) -> Sequence[ShardInfo]:
        """The shards as a store of its name sees them: `scene` belongs to every sample."""
        if store.name.startswith(f"{SCENE}-"):
            return [in_slot(shard, SCENE) for shard in self._shards]
        return self._shards


def _own_store(config: Config, workspace: Workspace, modality: str) -> AnyPath | None:
    """The store that the index gives for the configuration; None: there is none yet."""
    try:
        request = target_request(config, modality)
        return look_up(workspace.targets(config), modality, request)
    except Any2SegError:
        return None


def _own_descriptions(
    config: Config, workspace: Workspace, options: DescriptionsConfig, slot: str
) -> AnyPath | None:
    try:
        request = description_request(config, options)
        return look_up(descriptions_root(config, workspace), slot, request)
    except Any2SegError:
        return None
