"""Read the JSON files of a checkpoint: whatever is wrong with one is a `CheckpointError` naming it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline.errors import CheckpointError
from pipeline.formats.foreign_file import file_problem

JsonDict = dict[str, Any]
Pairs = list[tuple[str, Any]]
AGAIN = "Fetch the checkpoint again."


def read_json_object(path: Path, pairs: Callable[[Pairs], Any] | None = None) -> JsonDict:
    """The JSON object in a file. `pairs` makes each object of its (name, value) pairs.

    Raises `CheckpointError` for a file that is absent, unreadable, or anything else than one object.
    """
    problem = file_problem(path)
    if problem:
        raise CheckpointError(f"{path}: expected a readable {path.name}, found {problem}. {AGAIN}")
    try:
        raw = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=pairs)
    except RecursionError:
        raise CheckpointError(
            f"{path}: expected a readable {path.name}, found JSON nested too deep. {AGAIN}"
        ) from None
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{path}: expected a readable {path.name}, found no JSON: {error}. {AGAIN}"
        ) from error
    if not isinstance(raw, dict):
        raise CheckpointError(
            f"{path}: expected a JSON object, found a {type(raw).__name__}. {AGAIN}"
        )
    return raw
