"""How a pass is cut into tasks, and how a run without a reason to train ends."""

import pytest

from flows.retrain_decision import Decision
from flows.steps import nothing_to_do, num_ranges

KEPT = Decision(False, ("manifest grew 0.4 % (1000 to 1004 samples, < 5 %)", "towers unchanged"))


@pytest.mark.parametrize(
    ("units", "ranges"), [(0, 1), (1, 1), (5, 5), (8, 8), (100, 8), (1000, 15), (10**6, 100)]
)
def test_ranges_are_few_and_none_is_empty(units: int, ranges: int) -> None:
    assert num_ranges(units) == ranges


def test_no_new_units_and_no_reason_to_train_end_as_nothing_to_do() -> None:
    state = nothing_to_do(KEPT, {"prepare": {"done": 0}, "precompute": {"done": 0}})
    assert state.is_completed()
    assert state.name == "Nothing to do"
    assert "manifest grew 0.4 %" in str(state.message)
    assert "towers unchanged" in str(state.message)


def test_new_embeddings_without_training_end_as_student_kept() -> None:
    state = nothing_to_do(KEPT, {"prepare": {"done": 1}, "precompute": {"done": 2}})
    assert state.is_completed()
    assert state.name == "Student kept"
    assert "3 units" in str(state.message)
