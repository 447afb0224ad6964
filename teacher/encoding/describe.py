"""Stage `describe`: scene descriptions, stored as text and embedded with the text tower.

    describe(config, workspace) -> StageReport

`from_labels` composes one sentence per training sample from the manifest's class pixels and
condition; other splits get none, since their labels are for scoring only. `captioner` captions every
image of a modality. The stage runs only if the config has descriptions.

Texts are written first, then their embeddings, shard by shard (see `pipeline.targets.descriptions`);
what is complete is skipped.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipeline.config.config import Config
from pipeline.config.teacher import DescriptionsConfig
from pipeline.core.device import choose_device
from pipeline.core.progress import progress_bar
from pipeline.core.splits import TRAIN_SPLIT
from pipeline.core.stage_report import StageReport
from pipeline.errors import ConfigError
from pipeline.formats.image_codec import decode_image
from pipeline.formats.shard_tar import read_shard, stored_member
from pipeline.shards.manifest import Manifest, ShardInfo
from pipeline.targets.descriptions import (
    SCENE,
    TextStore,
    described_shards,
    descriptions_root,
    in_slot,
    point_to_descriptions,
)
from pipeline.targets.provenance import EMBEDDING, TargetProvenance
from pipeline.targets.store import TargetStore
from pipeline.workspace import Workspace
from teacher.open import open_teacher

if TYPE_CHECKING:
    from teacher.contract import LoadedText, TeacherText

SENTENCE_VERSION = 1
"""Increment it when the same label starts to give another sentence."""
_SHARES = (("mostly", 0.2), ("some", 0.02), ("a little", 0.001))
"""Word for a class, and the share of the labelled pixels from which it applies."""

Writer = Callable[[ShardInfo], list[str]]
"""A shard's texts, one a row."""


def describe(
    config: Config,
    workspace: Workspace,
    *,
    device: str | None = None,
    progress: bool = True,
) -> StageReport:
    """Describe what is not described yet and embed it. `ConfigError` without `config.descriptions`."""
    started = time.perf_counter()
    options = config.descriptions
    if options is None:
        raise ConfigError(
            "descriptions: not set. Add a table to the config, e.g. "
            '`descriptions = { source = "from_labels" }`.'
        )
    manifest = Manifest.load(workspace.dataset(config))
    chosen = device or config.teacher.device
    slots = _writers(config, workspace, manifest, options, chosen)
    shards = described_shards(options, manifest)
    source = _text_of(config)
    text = _LazyText(source, config.teacher.dtype, chosen)
    done = 0
    with progress_bar("describe", len(shards) * len(slots), "shards", progress) as advance:
        for slot, (identity, write) in slots.items():
            texts = TextStore.create(descriptions_root(config, workspace), slot, identity)
            store = _embedding_store(config, workspace, source, slot, identity)
            point_to_descriptions(config, workspace, options, store)
            for shard in shards:
                done += _describe_shard(in_slot(shard, slot), slot, texts, write, store, text)
                advance(1, shard.name)
    return StageReport(
        stage="describe",
        done=done,
        skipped=len(shards) * len(slots) - done,
        seconds=time.perf_counter() - started,
        details={"source": options.source, "slots": list(slots)},
    )


def sentence(classes: Sequence[str], class_pixels: Sequence[int], condition: str) -> str:
    """A label in words: `a night scene with mostly road, some car, a little pole.`

    Classes are named from the largest to the smallest share of the labelled pixels.
    """
    total = max(sum(class_pixels), 1)
    order = sorted(range(len(classes)), key=lambda index: (-class_pixels[index], index))
    named: dict[str, list[str]] = {word: [] for word, _ in _SHARES}
    for index in order:
        share = class_pixels[index] / total
        word = next((word for word, least in _SHARES if share >= least), None)
        if word is not None:
            named[word].append(classes[index].replace("_", " ").lower())
    parts = [f"{word} {' and '.join(names)}" for word, names in named.items() if names]
    start = f"a {condition} scene" if condition else "a scene"
    return f"{start} with {', '.join(parts) or 'nothing labelled'}."


def _writers(
    config: Config,
    workspace: Workspace,
    manifest: Manifest,
    options: DescriptionsConfig,
    device: str,
) -> dict[str, tuple[dict[str, Any], Writer]]:
    """Slot to the identity of its texts and the function that writes them."""
    if options.source == "from_labels":
        identity = {
            "source": "from_labels",
            "version": SENTENCE_VERSION,
            "classes": list(manifest.classes),
        }
        return {SCENE: (identity, _LabelWriter(manifest))}
    from teacher.encoding.captioner import captioner_identity, find_model

    unknown = set(options.modalities) - set(config.modalities)
    if unknown:
        raise ConfigError(
            f"descriptions.modalities: expected some of {', '.join(config.modalities)}, found "
            f"{', '.join(sorted(unknown))}"
        )
    folder = find_model(options)
    identity = captioner_identity(options, folder, workspace.cache)
    writer = _CaptionWriter(config, options, str(folder), device)
    names = options.modalities or tuple(config.modalities)
    return {
        name: ({**identity, "spec": config.specs()[name].identity()}, writer.of(name))
        for name in names
    }


class _LabelWriter:
    """Sentences from the manifest's pixel counts."""

    def __init__(self, manifest: Manifest) -> None:
        self._classes = manifest.classes
        self._facts = manifest.table(TRAIN_SPLIT, ("class_pixels", "condition"))
        shards = [shard for shard in manifest.shard_spans if shard.split == TRAIN_SPLIT]
        self._starts = {shard.index: shard.start - shards[0].start for shard in shards}

    def __call__(self, shard: ShardInfo) -> list[str]:
        rows = self._facts.slice(self._starts[shard.index], shard.num_rows).to_pylist()
        return [sentence(self._classes, row["class_pixels"], row["condition"]) for row in rows]


class _CaptionWriter:
    """Captions of a modality's images; the model is loaded at the first shard."""

    def __init__(
        self, config: Config, options: DescriptionsConfig, folder: str, device: str
    ) -> None:
        self._specs = config.specs()
        self._arguments = (folder, options, device)
        self._captioner: Any = None

    def of(self, modality: str) -> Writer:
        """The writer of one modality."""
        return lambda shard: self._captions(shard, modality)

    def _captions(self, shard: ShardInfo, modality: str) -> list[str]:
        if self._captioner is None:
            from pathlib import Path

            from teacher.encoding.captioner import Captioner

            folder, options, device = self._arguments
            self._captioner = Captioner(Path(folder), options, choose_device(device))
        spec = self._specs[modality]
        texts = dict.fromkeys(shard.keys, "")
        for key, members in read_shard(shard.path, shard.sha256):
            data = members.get(stored_member(modality, members))
            if data is not None:
                image = decode_image(data, spec, f"{shard.path}: {key}.{modality}")
                texts[key] = self._captioner([image], spec)[0]
        return [texts[key] for key in shard.keys]


class _LazyText:
    """The text tower, loaded on first use."""

    def __init__(self, source: TeacherText, dtype: str, device: str) -> None:
        self._source, self._dtype, self._device = source, dtype, device
        self._tower: LoadedText | None = None

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """(N, E) unit-norm float32."""
        if self._tower is None:
            self._tower = self._source.load(self._dtype, choose_device(self._device))
        rows: NDArray[np.float32] = self._tower.encode(texts).cpu().numpy()
        return rows


def _text_of(config: Config) -> TeacherText:
    """The teacher's text tower, located. `ConfigError` if it has none."""
    teacher = open_teacher(config.teacher.name, config.teacher.revision)
    if teacher.text is None:
        raise ConfigError(
            f"descriptions: expected a teacher with a text tower, found {config.teacher.name} "
            f"({teacher.family}). Remove `descriptions`, or set teacher.name to one that has one."
        )
    return teacher.text


def _embedding_store(
    config: Config,
    workspace: Workspace,
    source: TeacherText,
    slot: str,
    identity: Mapping[str, Any],
) -> TargetStore:
    tower = source.identity(compute_dtype=config.teacher.dtype, cache=workspace.cache)
    provenance = TargetProvenance(
        modality=slot,
        teacher=config.teacher.name,
        spec={"descriptions": dict(identity)},
        tower=tower,
        outputs={EMBEDDING: (source.embedding_dim,)},
        dtype=config.store.dtype,
        shard_size=config.store.shard_size,
    )
    return TargetStore.create(descriptions_root(config, workspace), provenance)


def _describe_shard(
    shard: ShardInfo,
    slot: str,
    texts: TextStore,
    write: Writer,
    store: TargetStore,
    text: _LazyText,
) -> bool:
    """Write and embed the missing texts of one shard; False if nothing was missing."""
    written = texts.read(shard)
    if written is not None and store.is_committed(shard):
        return False
    started = time.perf_counter()
    if written is None:
        written = write(shard)
        texts.write(shard, written)
    rows = text.encode(written)
    rows[~np.array(shard.present[slot])] = np.nan
    store.commit(shard, {EMBEDDING: rows}, {"seconds": time.perf_counter() - started})
    return True
