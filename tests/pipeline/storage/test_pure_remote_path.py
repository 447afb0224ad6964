"""Names of objects behave like pathlib's; no request is made."""

from __future__ import annotations

import pickle
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import ConfigError
from pipeline.storage.files import relative
from pipeline.storage.pure_remote_path import CacheConfig, PureRemotePath
from pipeline.storage.remote_path import RemotePath

BUCKET = PureRemotePath("s3://bucket", "")
NAMES = st.from_regex(r"[a-z0-9_-]{1,6}(\.[a-z0-9]{1,4}){0,2}", fullmatch=True)


@given(parts=st.lists(NAMES, min_size=1, max_size=4), name=NAMES)
def test_parts_equal_pathlibs(parts: list[str], name: str) -> None:
    wanted = PurePosixPath("/", *parts)
    path = BUCKET.joinpath(*parts)
    assert str(path) == f"s3://bucket{wanted}"
    assert (path.name, path.stem, path.suffix) == (wanted.name, wanted.stem, wanted.suffix)
    assert str(path.parent / name) == f"s3://bucket{wanted.parent / name}".replace("t//", "t/")
    assert path.with_name(name).key == str(wanted.with_name(name)).lstrip("/")
    assert path.with_suffix(".x").key == str(wanted.with_suffix(".x")).lstrip("/")
    assert path.relative_to(BUCKET) == wanted.relative_to("/")
    assert pickle.loads(pickle.dumps(path)) == path  # noqa: S301 our own bytes


def test_relative_to_another_bucket_raises() -> None:
    with pytest.raises(ValueError, match="not below"):
        (BUCKET / "a").relative_to(PureRemotePath("s3://other", ""))


def test_derived_paths_keep_class_and_cache() -> None:
    path = RemotePath.of("s3://bucket/a/b", CacheConfig(Path("/cache"), 1))
    for made in (path / "c", path.parent, path.with_suffix(".x"), path.with_name("y")):
        assert type(made) is RemotePath
        assert made.cache == path.cache
    assert relative(path / "c/d", path) == "c/d"
    assert pickle.loads(pickle.dumps(path)).cache == path.cache  # noqa: S301 our own bytes
    assert {path: 1}[RemotePath("s3://bucket", "a/b")] == 1
    assert sorted([path / "b", path / "a"]) == [path / "a", path / "b"]


@pytest.mark.parametrize(
    "url", ["ftp://bucket/a", "s3://user:secret@bucket/a", "s3://bucket/a?x=1", "s3://bucket/../a"]
)
def test_urls_with_credentials_queries_or_other_schemes_are_refused(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        PureRemotePath.of(url)
    assert "secret" not in str(caught.value)
