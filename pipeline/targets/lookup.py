"""From what a config asks for to the store that holds it, without any teacher weights.

The fingerprint of a store covers the digest of the weights, which a training machine may not have.
So the pass that makes a store leaves `<index>/<what>-<request-fp12>.json`, {request, store}: the
request is everything that the config says about it. Looking up a request that was never made is a
`MissingTarget`; so is one whose entry cannot be read or leads to targets of something else, since the
pass writes every entry anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.config.config import Config
from pipeline.core.fingerprint import SHORT, fingerprint
from pipeline.errors import MissingTarget
from pipeline.storage.files import AnyPath, read_json, relative, write_json
from pipeline.targets.provenance import REMEDY, store_schema
from pipeline.targets.store import TargetStore
from pipeline.targets.views import ViewConfig, view_identity
from pipeline.workspace import Workspace

INDEX = "index"


def point_to(root: AnyPath, what: str, request: Mapping[str, Any], store: AnyPath) -> None:
    """Let `request` lead to `store`, a folder in `root`."""
    entry = {"request": dict(request), "store": relative(store, root)}
    write_json(_path(root, what, request), entry)


def look_up(root: AnyPath, what: str, request: Mapping[str, Any]) -> AnyPath:
    """The folder that `request` leads to. Raises `MissingTarget`."""
    path = _path(root, what, request)
    try:
        store = root / str(read_json(path)["store"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        raise MissingTarget(
            f"{root}: nothing was computed for {what} as configured. {REMEDY}"
        ) from None
    if not store.is_dir():
        raise MissingTarget(f"{path} names {store}, which no longer exists. {REMEDY}")
    return store


def open_store(root: AnyPath, what: str, request: Mapping[str, Any]) -> TargetStore:
    """The target store that `request` leads to. Raises `MissingTarget`, `CorruptTarget`."""
    store = TargetStore.open(look_up(root, what, request))
    if store.provenance.modality != what:
        raise MissingTarget(
            f"{_path(root, what, request)}: expected targets of {what}, found that it leads to "
            f"{store.path}, which holds those of {store.provenance.modality}. {REMEDY}"
        )
    return store


def _path(root: AnyPath, what: str, request: Mapping[str, Any]) -> AnyPath:
    return root / INDEX / f"{what}-{fingerprint(request)[:SHORT]}.json"


def target_request(config: Config, modality: str) -> dict[str, Any]:
    """Everything that a config says about a modality's targets; no weights are looked at."""
    spec, teacher = config.specs()[modality], config.teacher
    request = {
        "schema": store_schema(teacher.outputs),
        "teacher": teacher.name,
        "revision": teacher.revision,
        "arithmetic": teacher.dtype,
        "outputs": list(teacher.outputs),
        "tower": spec.tower,
        "spec": spec.identity(),
        "max_depth_m": teacher.max_depth_m if spec.tower == "depth" else None,
        "depth_holes": teacher.depth_holes if spec.tower == "depth" else None,
        "antialias": teacher.antialias,
        "dtype": config.store.dtype,
    }
    return request | view_identity(ViewConfig.of(config))


def point_to_store(config: Config, workspace: Workspace, store: TargetStore) -> None:
    """Remember that this config's request is served by `store`; call it when a pass has planned."""
    modality = store.provenance.modality
    point_to(workspace.targets(config), modality, target_request(config, modality), store.path)


def resolve(config: Config, workspace: Workspace, modality: str) -> TargetStore:
    """The store that serves a config's modality. Raises `MissingTarget`, `CorruptTarget`."""
    return open_store(workspace.targets(config), modality, target_request(config, modality))
