"""Teachers that this package does not know: by dotted path, or by an installed entry point.

    teacher.name = "my_package.my_module:MyTeacher"      # a class or function, called without arguments
    teacher.name = "histogram"                           # a name in the entry-point group any2seg.teachers

What the call returns must satisfy `teacher.contract.Teacher`; `teacher.custom_teacher.CustomTeacher` is a
base class for the usual case. The dotted path becomes part of every identity, so two classes never
share targets. Worker processes import the module themselves: it must be installed, or its folder be on
PYTHONPATH. No torch, unless the module imports it.

Every mistake is a `ConfigError` of one line.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from pipeline.core.fingerprint import canonical_json
from pipeline.errors import Any2SegError, ConfigError
from pipeline.modalities import TowerName
from teacher.contract import (
    LoadedText,
    LoadedTower,
    Teacher,
    TeacherText,
    TeacherTower,
)

GROUP = "any2seg.teachers"
_DOTTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")


def open_own(name: str, revision: str | None = None) -> NamedTeacher | None:
    """The teacher of a dotted path or an entry point; None if `name` is neither. `ConfigError`."""
    dotted = name if _DOTTED.fullmatch(name) else _entry_point(name)
    if dotted is None:
        return None
    if revision is not None:
        raise ConfigError(
            f"teacher.revision: {name} is a Python class and has no revision; leave it out"
        )
    teacher = _construct(_resolve(dotted), dotted)
    _require_members(teacher, Teacher, dotted)
    if not teacher.towers:
        raise ConfigError(f"teacher.name: {dotted}.towers is empty; expected e.g. ('image',)")
    return NamedTeacher(dotted, teacher)


@dataclass(frozen=True, slots=True)
class NamedTeacher:
    """A user's teacher, whose identities carry its dotted path."""

    dotted: str
    teacher: Teacher

    @property
    def family(self) -> str:
        """See `Teacher`."""
        return self.teacher.family

    @property
    def towers(self) -> tuple[TowerName, ...]:
        """See `Teacher`."""
        return self.teacher.towers

    @property
    def text(self) -> NamedText | None:
        """See `Teacher`."""
        text = self.teacher.text
        if text is None:
            return None
        _require_members(text, TeacherText, f"{self.dotted}.text")
        return NamedText(self.dotted, text)

    def tower(self, name: TowerName, **options: object) -> NamedTower:
        """See `Teacher`."""
        tower = self.teacher.tower(name, **options)
        _require_members(tower, TeacherTower, f"{self.dotted}.tower({name!r})")
        return NamedTower(self.dotted, tower)


@dataclass(frozen=True, slots=True)
class NamedTower:
    """A tower of an `NamedTeacher`."""

    dotted: str
    tower: TeacherTower

    @property
    def name(self) -> TowerName:
        """See `TeacherTower`."""
        return self.tower.name

    @property
    def input_px(self) -> tuple[int, int]:
        """See `TeacherTower`."""
        return self.tower.input_px

    def output_shapes(self) -> dict[str, tuple[int, ...]]:
        """See `TeacherTower`."""
        return self.tower.output_shapes()

    def identity(self, *, compute_dtype: str, cache: Path) -> dict[str, Any]:
        """See `TeacherTower`; the dotted path is part of it."""
        own = self.tower.identity(compute_dtype=compute_dtype, cache=cache)
        return _named_identity(self.dotted, own)

    def load(self, dtype: str, device: str) -> LoadedTower:
        """See `TeacherTower`."""
        loaded = self.tower.load(dtype, device)
        _require_members(loaded, LoadedTower, f"{self.dotted}: what load() returned")
        return loaded

    @property
    def shape(self) -> Any:
        """The tower's `VitShape`; `AttributeError` if it has none."""
        tower: Any = self.tower
        return tower.shape


@dataclass(frozen=True, slots=True)
class NamedText:
    """The text tower of an `NamedTeacher`."""

    dotted: str
    tower: TeacherText

    @property
    def embedding_dim(self) -> int:
        """See `TeacherText`."""
        return self.tower.embedding_dim

    def identity(self, *, compute_dtype: str, cache: Path) -> dict[str, Any]:
        """See `TeacherText`; the dotted path is part of it."""
        own = self.tower.identity(compute_dtype=compute_dtype, cache=cache)
        return _named_identity(self.dotted, own)

    def load(self, dtype: str, device: str) -> LoadedText:
        """See `TeacherText`."""
        loaded = self.tower.load(dtype, device)
        _require_members(loaded, LoadedText, f"{self.dotted}: what text.load() returned")
        return loaded


def _named_identity(dotted: str, identity: dict[str, Any]) -> dict[str, Any]:
    try:
        canonical_json(identity)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"teacher.name: {dotted}: identity() must be JSON-ready: {error}"
        ) from error
    return {"own": dotted, **identity}


def _entry_point(name: str) -> str | None:
    """The dotted path that an installed distribution gives `name`; None if none does."""
    values = sorted({entry.value for entry in entry_points(group=GROUP, name=name)})
    if len(values) > 1:
        raise ConfigError(
            f"teacher.name = {name!r}: several installed packages offer it ({', '.join(values)}); "
            "give one of these paths instead"
        )
    return values[0].replace(" ", "") if values else None


def _resolve(dotted: str) -> object:
    module_name, _, attributes = dotted.partition(":")
    try:
        target: object = import_module(module_name)
    except Exception as error:  # whatever a user's module raises while it is imported
        raise ConfigError(
            f"teacher.name = {dotted!r}: module {module_name} cannot be imported "
            f"({_one_line(error)}). Install it, or put its folder on PYTHONPATH"
        ) from error
    for attribute in attributes.split("."):
        if not hasattr(target, attribute):
            close = difflib.get_close_matches(attribute, dir(target), n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise ConfigError(f"teacher.name = {dotted!r}: no {attribute} in {module_name}{hint}")
        target = getattr(target, attribute)
    return target


def _construct(target: object, dotted: str) -> Any:
    if not callable(target):
        raise ConfigError(
            f"teacher.name = {dotted!r}: expected a class or a function that returns a teacher, "
            f"found {type(target).__name__}"
        )
    factory: Callable[[], object] = target
    try:
        return factory()
    except Any2SegError:
        raise
    except Exception as error:  # whatever a user's class raises
        raise ConfigError(
            f"teacher.name = {dotted!r}: calling it without arguments failed: {_one_line(error)}"
        ) from error


def _require_members(value: object, protocol: type, what: str) -> None:
    members = [name for name in vars(protocol) if not name.startswith("_")]
    # On the class too: a property of an instance may be costly, or raise for a reason of its own.
    missing = [name for name in members if not _has(value, name)]
    if missing:
        raise ConfigError(
            f"teacher.name: {what} ({type(value).__name__}) has no {', '.join(missing)}; expected what "
            f"teacher.contract.{protocol.__name__} lists (any2seg.CustomTeacher is a base class)"
        )


def _has(value: object, name: str) -> bool:
    return hasattr(type(value), name) or hasattr(value, name)


def _one_line(error: Exception) -> str:
    text = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
