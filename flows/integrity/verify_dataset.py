"""Examination of a prepared dataset: description, records, manifest, quarantine, shards.

    examine_dataset(config, workspace, deep) -> list[Finding]

Without `deep` records are read and compared, and tars must exist and be long enough; with it every shard's
sha256, tar structure, member list and spans are compared with the manifest. The records and
`manifest.parquet` have the same rows, so each can be checked against the other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from flows.integrity.finding import PREPARE, Finding, Kind
from flows.integrity.verify_shard import examine_shard
from pipeline.config.config import Config
from pipeline.core.fingerprint import differences, fingerprint
from pipeline.core.progress import progress_bar
from pipeline.datasets import open_dataset
from pipeline.errors import ConfigError, DatasetError
from pipeline.formats.shard_tar import shard_name
from pipeline.schemas import READABLE_DATASETS
from pipeline.shards.commit import RECORD_SUFFIX, REFUSED_SUFFIX
from pipeline.shards.manifest import (
    DATASET,
    MANIFEST,
    QUARANTINE,
    SHARDS,
    Rows,
    read_records,
    read_rows,
    record_path,
    refusals_path,
    shard_path,
)
from pipeline.shards.manifest_tables import ShardId, split_by_shard
from pipeline.storage.files import AnyPath, find_paths, read_json
from pipeline.workspace import Workspace, dataset_identity

STAGE = "prepare"


@dataclass(frozen=True, slots=True)
class Tables:
    """The rows of a dataset as its files have them; a file that cannot be read has none."""

    manifest: Mapping[ShardId, pa.Table] | None
    records: Mapping[ShardId, pa.Table]

    def rows(self, shard: ShardId) -> pa.Table:
        """Rows of a shard: the record's, or else the manifest's."""
        if shard in self.records:
            return self.records[shard]
        assert self.manifest is not None
        return self.manifest[shard]

    @property
    def shards(self) -> list[ShardId]:
        """All shards that a record or the manifest names."""
        return sorted({*self.records, *(self.manifest or {})})


def is_prepared(folder: AnyPath) -> bool:
    """Whether anything of the dataset was ever committed."""
    return (folder / DATASET).exists() or (folder / MANIFEST).exists() or (folder / SHARDS).is_dir()


def examine_dataset(
    config: Config, workspace: Workspace, *, deep: bool, progress: bool = True
) -> list[Finding]:
    """All findings about the dataset of `config`; none if nothing was prepared yet."""
    folder = workspace.dataset(config)
    if not is_prepared(folder):
        return []
    findings = [*_description(config, folder)]
    tables = _read_tables(folder, findings)
    findings += _compare(folder, tables)
    findings += _leftovers(folder, tables)
    findings += _refusals(folder, tables)
    with progress_bar("verify shards", len(tables.shards), "shards", progress) as advance:
        for shard in tables.shards:
            of_shard = examine_shard(shard_path(folder, *shard), tables.rows(shard), deep=deep)
            findings += [replace(finding, shard=shard_name(*shard)) for finding in of_shard]
            advance(1, shard_name(*shard))
    return findings


def _description(config: Config, folder: AnyPath) -> Iterator[Finding]:
    path = folder / DATASET
    try:
        described = dict(read_json(path))
    except (OSError, ValueError, TypeError) as error:
        yield Finding(Kind.DESCRIPTION, str(path), f"cannot be read: {error}", stage=STAGE)
        return
    expected = _expected_description(config, described)
    fields = differences({name: described.get(name) for name in expected}, expected)
    if fields:
        yield Finding(
            Kind.DESCRIPTION,
            str(path),
            f"expected what the configuration and the folder's name say, found another "
            f"{', '.join(fields)}",
            stage=STAGE,
        )


def _expected_description(config: Config, described: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that the fingerprint determines, and the class names if the source can be opened."""
    identity = dataset_identity(config)
    schema = described.get("schema")
    expected = {
        "schema": schema if schema in READABLE_DATASETS else None,
        "fingerprint": fingerprint(identity),
        "identity": identity,
        "shard_size": config.store.shard_size,
    }
    try:
        adapter = open_dataset(config.dataset, config.specs())
    except (DatasetError, ConfigError):
        return expected
    return {**expected, "classes": list(adapter.classes)}


def _read_tables(folder: AnyPath, findings: list[Finding]) -> Tables:
    """Read the manifest and every record; what cannot be read becomes a finding."""
    manifest = None
    path = folder / MANIFEST
    try:
        manifest = split_by_shard(read_records(path))
    except FileNotFoundError:
        problem = "expected the merged records, found no file"
        findings.append(Finding(Kind.MANIFEST_UNREADABLE, str(path), problem, stage=STAGE))
    except (pa.ArrowException, OSError, ValueError, KeyError) as error:
        problem = f"expected the merged records, found: {error}"
        findings.append(Finding(Kind.MANIFEST_UNREADABLE, str(path), problem, stage=STAGE))
    records: dict[ShardId, pa.Table] = {}
    for record in _records(folder):
        try:
            records.update(_one_shard(record))
        except (pa.ArrowException, OSError, ValueError, KeyError) as error:
            findings.append(_unreadable(record, error))
    return Tables(manifest, records)


def _records(folder: AnyPath) -> list[AnyPath]:
    paths = find_paths(folder / SHARDS, f"*/*{RECORD_SUFFIX}")
    return [path for path in paths if not path.name.endswith(REFUSED_SUFFIX)]


def _one_shard(record: AnyPath) -> dict[ShardId, pa.Table]:
    """A record's rows. `ValueError` if they are not those of the shard that it is named after."""
    tables = split_by_shard(read_records(record))
    names = [shard_name(*shard) for shard in tables]
    if names != [record.stem]:
        raise ValueError(f"rows of {', '.join(names) or 'no shard'}")
    return tables


def _unreadable(record: AnyPath, error: Exception) -> Finding:
    return Finding(
        Kind.SHARD_RECORD_UNREADABLE,
        str(record),
        f"expected the rows of {record.stem}, found: {error}",
        shard=record.stem,
        stage=STAGE,
    )


def _compare(folder: AnyPath, tables: Tables) -> Iterator[Finding]:
    """Every shard must have a record, and the manifest the same rows."""
    if tables.manifest is None:
        return
    for shard in tables.shards:
        name = shard_name(*shard)
        record = record_path(shard_path(folder, *shard))
        if shard not in tables.manifest:
            yield Finding(
                Kind.MANIFEST_DIFFERS,
                str(folder / MANIFEST),
                f"expected the rows of {name}, which is committed, found none",
                f"{PREPARE}, or any2seg repair CONFIG",
                stage=STAGE,
            )
        elif shard not in tables.records and not record.exists():
            yield Finding(
                Kind.SHARD_RECORD_MISSING,
                str(record),
                "expected a record, as the manifest names the shard; found no file",
                shard=name,
                stage=STAGE,
            )
        elif shard in tables.records and not tables.records[shard].equals(tables.manifest[shard]):
            yield Finding(
                Kind.MANIFEST_DIFFERS,
                str(record),
                f"expected the rows that {MANIFEST} has, found another "
                f"{', '.join(_differing(tables.records[shard], tables.manifest[shard]))}",
                shard=name,
                stage=STAGE,
            )


def _differing(record: pa.Table, manifest: pa.Table) -> list[str]:
    if record.num_rows != manifest.num_rows or record.column_names != manifest.column_names:
        return ["number of rows or columns"]
    return [n for n in record.column_names if not record[n].equals(manifest[n])]


def _leftovers(folder: AnyPath, tables: Tables) -> Iterator[Finding]:
    committed = {shard_name(*shard) for shard in tables.shards}
    for tar in find_paths(folder / SHARDS, "*/*.tar"):
        if tar.stem not in committed and not record_path(tar).exists():
            yield Finding(
                Kind.SHARD_LEFTOVER,
                str(tar),
                "expected a record beside it, found none: a killed run left it",
                f"{PREPARE}, or any2seg repair CONFIG",
                drop=(refusals_path(tar), tar),
            )


def _refusals(folder: AnyPath, tables: Tables) -> Iterator[Finding]:
    """`quarantine.parquet` must merge the refusals of committed chunks."""
    keys = {key for shard in tables.shards for key in tables.rows(shard)["key"].to_pylist()}
    committed = {shard_name(*shard) for shard in tables.shards}
    refused: dict[str, dict[str, Any]] = {}
    for path in find_paths(folder / SHARDS, f"*/*{REFUSED_SUFFIX}"):
        try:
            rows = read_rows(path)
        except (pa.ArrowException, OSError) as error:
            problem = f"expected refused samples, found: {error}"
            shard = path.name.removesuffix(REFUSED_SUFFIX)
            kind = Kind.REFUSALS_UNREADABLE
            yield Finding(kind, str(path), problem, shard=shard, stage=STAGE, drop=(path,))
            return
        if path.name.removesuffix(REFUSED_SUFFIX) in committed or rows[0]["shard_rows"] == 0:
            refused.update((row["key"], row) for row in rows if row["key"] not in keys)
    order = ("split", "shard", "key")
    expected = sorted(refused.values(), key=lambda row: tuple(row[name] for name in order))
    problem = _quarantine_problem(folder / QUARANTINE, expected)
    if problem:
        path = folder / QUARANTINE
        yield Finding(Kind.QUARANTINE_DIFFERS, str(path), problem, stage=STAGE)


def _quarantine_problem(path: AnyPath, expected: Rows) -> str:
    try:
        rows = read_rows(path)
    except FileNotFoundError:
        return "expected the merged refusals, found no file"
    except (pa.ArrowException, OSError) as error:
        return f"cannot be read: {error}"
    if rows == expected:
        return ""
    return f"expected {len(expected)} refused samples, found {len(rows)} or other ones"
