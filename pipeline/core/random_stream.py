"""The random streams of the pipeline: the number that, beside a seed, selects a stream for one use.

    rng = np.random.default_rng([seed, RandomStream.SUBSETS, position])

Uses with different numbers never share draws, whatever the seed. A number is part of every result made
with it: it never changes and is never reused.
"""

from __future__ import annotations

from enum import IntEnum, unique


@unique
class RandomStream(IntEnum):
    """What is drawn from the stream."""

    SAMPLE_ORDER = 1
    """Order of the training samples, by epoch."""
    CROPS = 2
    """Crop, flip and view of a training sample, by position."""
    SUBSETS = 3
    """Modality subset of a training sample, by position."""
    TRAINING_STEP = 4
    """Torch's generator (dropout) in a training step, by step and rank."""
    AUGMENTATION = 5
    """Scale, colour and blur of a training sample, by position."""
    DOCTOR_SAMPLES = 31
    """Samples that `any2seg doctor` reads."""
    CONTACT_SHEET_SAMPLES = 37
    """Samples on the contact sheet."""
    SPLIT_GUESS = 41
    """Which samples a proposed split holds out."""
    PROPOSAL_SAMPLES = 43
    """Files that `any2seg init` reads to propose a config."""
    COMPARED_SAMPLES = 47
    """Samples and patches on which `any2seg teacher --compare` measures teachers."""
