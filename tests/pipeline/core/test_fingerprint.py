"""Fingerprints: one text per value, and errors that print the field that differs."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.core.fingerprint import canonical_json, differences, fingerprint, require_same
from pipeline.errors import FingerprintMismatch

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


def test_fingerprint_of_a_known_value() -> None:
    """sha256 of the text {"a":[1,"\\u00fc"],"b":null}, computed with `sha256sum`."""
    value = {"b": None, "a": [1, "\u00fc"]}
    assert canonical_json(value) == '{"a":[1,"\\u00fc"],"b":null}'
    expected = "eb7f3d221da616470b6745d0feb6d54ccf9fb5127d2742720fdfc5f887564e4a"
    assert fingerprint(value) == expected


@given(st.dictionaries(st.text(), VALUES, max_size=5))
def test_fingerprint_ignores_key_order_and_a_json_round_trip(value: dict) -> None:
    turned = dict(reversed(value.items()))
    assert fingerprint(turned) == fingerprint(value)
    assert fingerprint(json.loads(json.dumps(value))) == fingerprint(value)


@given(VALUES, VALUES)
def test_differences_are_empty_exactly_for_equal_fingerprints(one: object, two: object) -> None:
    assert (differences(one, two) == []) == (fingerprint(one) == fingerprint(two))
    assert differences(one, one) == []


def test_differences_tell_absent_from_null_and_1_from_1_point_0() -> None:
    assert differences({"a": None}, {}) == ["a"]
    assert differences({"a": {"b": 1}}, {"a": {"b": 1.0}}) == ["a.b"]


def test_nan_has_no_fingerprint() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        fingerprint({"x": float("nan")})


def test_a_mismatch_names_the_fields_and_the_remedy() -> None:
    found = {"weights": "abc", "preprocessing": {"antialias": True, "size": 224}}
    wanted = {"weights": "abc", "preprocessing": {"antialias": False, "size": 224, "crop": 1}}
    with pytest.raises(FingerprintMismatch) as error:
        require_same("the store", found, wanted, "Run X.")
    assert str(error.value).startswith(f"the store: made with {fingerprint(found)[:12]}")
    assert "(differs in: preprocessing.antialias, preprocessing.crop). Run X." in str(error.value)
    require_same("the store", found, dict(found), "Run X.")
