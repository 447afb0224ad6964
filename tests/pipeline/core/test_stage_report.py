"""The report of a stage is small, JSON-ready and readable."""

from __future__ import annotations

import json

from pipeline.core.stage_report import Failure, StageReport


def test_report_as_json_and_text() -> None:
    report = StageReport("prepare", 2, 3, (Failure("a", "broken"),), 1.26, {"rate": 4})
    assert str(report) == "prepare: 2 done, 3 already there, 1 refused (1.3 s)"
    assert json.loads(json.dumps(report.as_json())) == {
        "stage": "prepare",
        "done": 2,
        "skipped": 3,
        "failed": [{"unit": "a", "reason": "broken"}],
        "seconds": 1.26,
        "details": {"rate": 4},
    }
    assert StageReport.from_json(json.loads(json.dumps(report.as_json()))) == report
    assert "refused" not in str(StageReport("train"))
