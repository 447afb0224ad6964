"""Random streams: the numbers that results were made with, and the draws they give."""

from __future__ import annotations

import numpy as np

from pipeline.core.random_stream import RandomStream


def test_stream_numbers_never_change() -> None:
    assert {stream.name: stream.value for stream in RandomStream} == {
        "SAMPLE_ORDER": 1,
        "CROPS": 2,
        "SUBSETS": 3,
        "TRAINING_STEP": 4,
        "AUGMENTATION": 5,
        "DOCTOR_SAMPLES": 31,
        "CONTACT_SHEET_SAMPLES": 37,
        "SPLIT_GUESS": 41,
        "PROPOSAL_SAMPLES": 43,
        "COMPARED_SAMPLES": 47,
    }


def test_a_stream_draws_like_its_plain_number() -> None:
    for stream in RandomStream:
        drawn = np.random.default_rng([7, stream, 0]).random(4)
        np.testing.assert_array_equal(drawn, np.random.default_rng([7, int(stream), 0]).random(4))
        seed = np.random.SeedSequence([7, stream]).generate_state(1)
        assert seed == np.random.SeedSequence([7, stream.value]).generate_state(1)
