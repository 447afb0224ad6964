"""Artifacts: keys that Prefect allows and that stay the same, and the table of the summary."""

from pathlib import Path

from flows.artifacts import artifact_key, summary
from pipeline.config.load import load_config
from tests.flows.made_up_run import damage


def evaluation(*scores: float) -> dict[str, object]:
    subsets = [["nir"], ["red"], ["nir", "red"]]
    found = [{"modalities": s, "miou": m} for s, m in zip(subsets, scores, strict=True)]
    return {
        "split": "val",
        "num_samples": 4,
        "protocol": "skipped",
        "settings": {"window_px": 0},
        "step": 7,
        "seed": 5,
        "subsets": found,
        "all": scores[-1],
        "mean": sum(scores) / len(scores),
        "worst": min(found, key=lambda row: row["miou"]),
        "robustness": None,
    }


def test_a_key_has_only_what_prefect_allows(field: Path) -> None:
    config = load_config(field, ["name=My_Field-2"])
    assert artifact_key(config, "precompute-Near_IR") == "my-field-2-precompute-near-ir"


def test_the_summary_has_a_line_per_subset_and_a_column_per_row() -> None:
    text = summary(
        "t", {"main": evaluation(0.1, 0.2, 0.3), "b": evaluation(0.5, 0.5, 0.5)}, "/r.html"
    )
    lines = text.splitlines()
    assert "| modalities | main | b |" in lines
    assert "| nir, red | 30.0 | 50.0 |" in lines
    assert lines[-3:] == [
        "| **all** | **30.0** | **50.0** |",
        "| **mean** | **20.0** | **50.0** |",
        "| **worst** | **10.0 (nir)** | **50.0 (nir)** |",
    ]
    assert "split val, 4 samples, skipped, whole images, step 7, seed 5" in text
    assert "[/r.html](file:///r.html)" in text
    assert "[s3://b/r.html](s3://b/r.html)" in summary(
        "t", {"main": evaluation(0, 0, 0)}, "s3://b/r.html"
    )


def test_the_robustness_table_has_only_rows_scored_for_robustness() -> None:
    rows = [
        {"modalities": ["nir"], "miou": 0.3, "miou_absent_zero": 0.2},
        {"modalities": ["nir", "red"], "miou": 0.4, "miou_absent_zero": 0.3},
    ]
    robust = evaluation(0.1, 0.2, 0.3) | {"robustness": damage(rows)}
    lines = summary("t", {"a": evaluation(0, 0, 0), "b": robust}, "/r.html").splitlines()
    first = lines.index("| robustness | b |")
    assert lines[first + 2 : first + 4] == [
        "| EMM skipped: skips | 12.3 |",
        "| EMM zero-filled: fills | 11.3 |",
    ]
    assert lines[-1] == "| NM high: high noise | 3.7 |"
