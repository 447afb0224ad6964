"""Evaluation resumes with half the batch when it runs out of memory."""

import pytest

from pipeline.config.config import Config
from student.evaluation.batch_halving import halve_batch_on_oom


@pytest.fixture
def config() -> Config:
    return Config.model_validate(
        {
            "name": "t",
            "dataset": {"adapter": "synthetic"},
            "modalities": {"rgb": {}},
            "evaluate": {"batch_size": 16},
        }
    )


class Scorer:
    """A score function whose batches fit up to `largest` samples."""

    def __init__(self, largest: int, error: str = "CUDA out of memory. Tried to allocate 20 MiB"):
        self.largest, self.error = largest, error
        self.sizes: list[int] = []

    def __call__(self, config: Config) -> str:
        self.sizes.append(config.evaluate.batch_size)
        if config.evaluate.batch_size > self.largest:
            raise RuntimeError(self.error)
        return "scored"


def test_the_batch_is_halved_until_it_fits(config: Config) -> None:
    score = Scorer(5)
    assert halve_batch_on_oom(score, config, alone=True) == "scored"
    assert score.sizes == [16, 8, 4]


def test_a_single_sample_that_does_not_fit_is_an_error(config: Config) -> None:
    score = Scorer(0)
    with pytest.raises(RuntimeError, match="out of memory"):
        halve_batch_on_oom(score, config, alone=True)
    assert score.sizes == [16, 8, 4, 2, 1]


def test_one_of_several_processes_does_not_halve(config: Config) -> None:
    score = Scorer(5)
    with pytest.raises(RuntimeError, match="out of memory"):
        halve_batch_on_oom(score, config, alone=False)
    assert score.sizes == [16]


def test_another_error_is_raised_at_once(config: Config) -> None:
    score = Scorer(5, error="shapes differ")
    with pytest.raises(RuntimeError, match="shapes differ"):
        halve_batch_on_oom(score, config, alone=True)
    assert score.sizes == [16]
