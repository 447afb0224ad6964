"""Which teacher outputs the losses of a config read."""

from __future__ import annotations

import pytest

from student.runs.run import reads_prompts, reads_targets


def lscd(**terms: float) -> dict:
    return {"student": {"lscd": {"inter": 0, "intra": 0} | terms}}


@pytest.mark.parametrize(
    ("terms", "outputs", "prompts"),
    [
        ({}, (), False),
        ({"inter": 1}, ("embedding",), False),
        ({"intra": 1}, (), True),
        ({"intra": 1, "prompts": "one_hot"}, (), False),
        ({"dense": 1}, ("patch",), False),
        ({"dense": 1, "dense_distance": "kl"}, ("patch",), True),
        ({"inter": 1, "dense": 1}, ("embedding", "patch"), False),
    ],
)
def test_what_each_term_reads(make_config, tmp_path, terms, outputs, prompts):
    config = make_config(tmp_path, **lscd(**terms))
    assert reads_targets(config) == outputs
    assert reads_prompts(config) == prompts
