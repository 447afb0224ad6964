"""The prompt store: text embeddings of the class prompts, computed by one text tower.

    prompts/<teacher>-<fp12>/
        prompts.zarr/class_embedding      (K, D) float32, unit norm: mean over templates, normalised
        prompts.zarr/prompt_embedding     (K, T, D) float32, unit norm: one per prompt
        provenance.json                   what the embeddings depend on and their digests; written last

Without `provenance.json` the store does not exist. `MissingTarget` and `CorruptTarget` name the
command to run.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.config.config import Config
from pipeline.core.fingerprint import SHORT, fingerprint
from pipeline.datasets import open_dataset
from pipeline.errors import CorruptTarget, MissingTarget
from pipeline.formats.zarr_array import RowArray
from pipeline.schemas import PROMPTS_SCHEMA
from pipeline.storage.files import AnyPath, read_json, sweep_partials, write_json
from pipeline.storage.lease import LOCK, locked
from pipeline.targets.lookup import look_up, point_to
from pipeline.targets.provenance import PROVENANCE, REMEDY, slug
from pipeline.workspace import Workspace

ARRAYS = "prompts.zarr"
CLASS_EMBEDDING = "class_embedding"
PROMPT_EMBEDDING = "prompt_embedding"
WHAT = "prompts"


@dataclass(frozen=True, slots=True)
class PromptStore:
    """One store on disk, complete and immutable."""

    path: AnyPath
    described: Mapping[str, Any]
    """`provenance.json`: identity, shapes, digests."""

    @classmethod
    def find(cls, root: AnyPath, teacher: str, identity: Mapping[str, Any]) -> PromptStore | None:
        """The complete store of `identity` (text weights and tokenizer digests, class names,
        templates) under `root` (`Workspace.prompts`), or None."""
        path = _store_path(root, teacher, identity)
        return cls.open(path) if (path / PROVENANCE).exists() else None

    @classmethod
    def create(
        cls,
        root: AnyPath,
        teacher: str,
        identity: Mapping[str, Any],
        class_embedding: NDArray[np.float32],
        prompt_embedding: NDArray[np.float32],
    ) -> PromptStore:
        """Write (K, D) class and (K, T, D) prompt embeddings, unless the store is already complete."""
        path = _store_path(root, teacher, identity)
        arrays = {CLASS_EMBEDDING: class_embedding, PROMPT_EMBEDDING: prompt_embedding}
        for name, array in arrays.items():
            if not np.isfinite(array).all():
                raise CorruptTarget(f"{name}: expected finite numbers. Look at the text tower.")
        with locked(path / LOCK, wait=True):
            # Asked under the lock: another process may have completed the store in the meantime.
            sweep_partials(path)
            if not (path / PROVENANCE).exists():
                digests = {
                    name: _array(path, name, array.shape)
                    .write_object(0, array, fingerprint(identity))
                    .sha256
                    for name, array in arrays.items()
                }
                shapes = {name: list(array.shape) for name, array in arrays.items()}
                # Last, with the digests of the arrays: it commits them.
                write_json(
                    path / PROVENANCE,
                    {
                        "schema": PROMPTS_SCHEMA,
                        "fingerprint": fingerprint(identity),
                        "identity": dict(identity),
                        "shapes": shapes,
                        "objects": digests,
                    },
                )
        return cls.open(path)

    @classmethod
    def open(cls, path: AnyPath) -> PromptStore:
        """Open a complete store. Raises `MissingTarget`, or `CorruptTarget` if damaged."""
        try:
            return cls(path, dict(read_json(path / PROVENANCE)))
        except (ValueError, TypeError) as error:
            raise CorruptTarget(
                f"{path / PROVENANCE}: cannot be read: {error}. Delete {path} and run "
                "`any2seg precompute CONFIG`."
            ) from None
        except FileNotFoundError:
            raise MissingTarget(
                f"{path}: expected prompt embeddings, found none. {REMEDY}"
            ) from None

    @property
    def fingerprint(self) -> str:
        """Hex sha256 of the identity."""
        return str(self.described["fingerprint"])

    def class_embedding(self) -> NDArray[np.float32]:
        """(K, D) unit-norm float32. Raises `CorruptTarget`."""
        return self._read(CLASS_EMBEDDING)

    def prompt_embedding(self) -> NDArray[np.float32]:
        """(K, T, D) unit-norm float32. Raises `CorruptTarget`."""
        return self._read(PROMPT_EMBEDDING)

    def _read(self, name: str) -> NDArray[np.float32]:
        array = _array(self.path, name, self.described["shapes"][name])
        path = array.object_path(0)
        data = path.read_bytes() if path.exists() else b""
        digest = hashlib.sha256(data).hexdigest() if data else "no file"
        if digest != self.described["objects"][name]:
            raise CorruptTarget(
                f"{path}: expected sha256 {self.described['objects'][name][:SHORT]} as in "
                f"{PROVENANCE}, found {digest[:SHORT]}. Delete {self.path} and run "
                "`any2seg precompute CONFIG`."
            )
        return array.decode(data, str(path))


def prompt_request(config: Config, classes: Sequence[str]) -> dict[str, Any]:
    """Everything that a config says about its prompt embeddings; no weights are read."""
    return {
        "schema": PROMPTS_SCHEMA,
        "teacher": config.teacher.name,
        "revision": config.teacher.revision,
        "arithmetic": config.teacher.dtype,
        "templates": config.teacher.templates,
        "classes": list(classes),
    }


def point_to_prompts(config: Config, workspace: Workspace, store: PromptStore) -> None:
    """Remember that this config's request is served by `store`."""
    point_to(workspace.prompts, WHAT, prompt_request(config, _classes(config)), store.path)


def resolve_prompts(config: Config, workspace: Workspace) -> PromptStore:
    """The store that serves a config's class prompts. Raises `MissingTarget`."""
    request = prompt_request(config, _classes(config))
    return PromptStore.open(look_up(workspace.prompts, WHAT, request))


def _classes(config: Config) -> tuple[str, ...]:
    return open_dataset(config.dataset, config.specs()).classes


def _store_path(root: AnyPath, teacher: str, identity: Mapping[str, Any]) -> AnyPath:
    return root / f"{slug(teacher)}-{fingerprint(identity)[:SHORT]}"


def _array(path: AnyPath, name: str, shape: Sequence[int]) -> RowArray:
    """The whole array as one object."""
    dims = ("template", "dim")[3 - len(shape) :]
    return RowArray(path / ARRAYS, name, tuple(shape[1:]), "float32", shape[0], dims)
