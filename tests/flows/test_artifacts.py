"""What an operator reads: keys that Prefect allows and that stay, and the summary's table."""

from pathlib import Path

from flows.artifacts import artifact_key, summary
from pipeline.config import load_config


def evaluation(*scores: float) -> dict[str, object]:
    subsets = [["nir"], ["red"], ["nir", "red"]]
    found = [{"modalities": s, "miou": m} for s, m in zip(subsets, scores, strict=True)]
    return {"split": "val", "step": 7, "subsets": found, "mean": sum(scores) / len(scores)}


def test_a_key_has_only_what_prefect_allows(field: Path) -> None:
    config = load_config(field, ["name=My_Field-2"])
    assert artifact_key(config, "precompute-Near_IR") == "my-field-2-precompute-near-ir"


def test_the_summary_has_a_line_a_subset_and_a_column_a_row() -> None:
    text = summary(
        "t", {"main": evaluation(0.1, 0.2, 0.3), "b": evaluation(0.5, 0.5, 0.5)}, "/r.html"
    )
    lines = text.splitlines()
    assert "| modalities | main | b |" in lines
    assert "| nir, red | 30.0 | 50.0 |" in lines
    assert lines[-1] == "| **mean** | **20.0** | **50.0** |"
    assert "[/r.html](file:///r.html)" in text
    assert "[s3://b/r.html](s3://b/r.html)" in summary(
        "t", {"main": evaluation(0, 0, 0)}, "s3://b/r.html"
    )
