"""Errors of allocators are told from other errors by their words."""

import pytest
import torch

from pipeline.core.memory import is_out_of_memory


def test_the_cpu_allocators_error_is_out_of_memory() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)


@pytest.mark.parametrize("error", [RuntimeError("shape mismatch"), ValueError("memory of a tower")])
def test_other_errors_are_not_out_of_memory(error: Exception) -> None:
    assert not is_out_of_memory(error)
    assert is_out_of_memory(MemoryError())
