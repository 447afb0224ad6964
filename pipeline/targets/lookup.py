"""From what a config asks for to the store that holds it, without any teacher weights.

The fingerprint of a store covers the digest of the weights, which a training machine may not have.
So the pass that makes a store leaves `<index>/<what>-<request-fp12>.json`, {request, store}: the
request is everything that the config says about it. Looking up a request that was never made is a
`MissingTarget`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from pipeline.core.fingerprint import SHORT, fingerprint
from pipeline.errors import MissingTarget
from pipeline.storage.files import AnyPath, read_json, relative, write_json

INDEX = "index"
REMEDY = "Run `any2seg precompute CONFIG`."


def slug(name: str) -> str:
    """The last part of a teacher's name or folder, in lower-case letters, digits, `_` and `-`."""
    last = name.rstrip("/").rsplit("/", 1)[-1]
    return re.sub(r"[^a-z0-9_-]+", "-", last.lower()).strip("-")[:40] or "teacher"


def point_to(root: AnyPath, what: str, request: Mapping[str, Any], store: AnyPath) -> None:
    """Let `request` lead to `store`, a folder in `root`."""
    entry = {"request": dict(request), "store": relative(store, root)}
    write_json(_path(root, what, request), entry)


def look_up(root: AnyPath, what: str, request: Mapping[str, Any]) -> AnyPath:
    """The folder that `request` leads to. Raises `MissingTarget`."""
    path = _path(root, what, request)
    try:
        store = root / str(read_json(path)["store"])
    except (FileNotFoundError, json.JSONDecodeError, KeyError):
        raise MissingTarget(
            f"{root}: nothing was computed for {what} as configured. {REMEDY}"
        ) from None
    if not store.is_dir():
        raise MissingTarget(f"{path} names {store}, which is gone. {REMEDY}")
    return store


def _path(root: AnyPath, what: str, request: Mapping[str, Any]) -> AnyPath:
    return root / INDEX / f"{what}-{fingerprint(request)[:SHORT]}.json"
