"""Flows on a real server: what they write, refuse, recompute and report."""

import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from prefect.blocks.notifications import CustomWebhookNotificationBlock
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import State
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.flow_context import only_writer
from flows.flows import any2seg, audit, evaluate, refresh_teacher, retrain
from pipeline.config.load import load_config
from pipeline.shards.prepare import prepare
from pipeline.storage.remote_path import RemotePath
from pipeline.workspace import Workspace
from teacher.checkpoints.locate import find_text_tower
from teacher.towers import text_tower, vision_tower

from .conftest import Server, new_field, write_samples

pytestmark = [pytest.mark.server, pytest.mark.slow, pytest.mark.timeout(1200)]

SECRET = "AKIA-not-a-real-key-0123456789"


@pytest.fixture(scope="module", autouse=True)
def _credentials() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        patch.setenv("OMP_NUM_THREADS", "1")
        yield


@pytest.fixture(scope="module")
def trained(server: Server, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, State]:
    """A config whose flow ran once, and the state in which it ended."""
    config = new_field(tmp_path_factory.mktemp("trained"))
    with temporary_settings({PREFECT_API_URL: server.url}):
        state: State = any2seg(str(config), return_state=True)
    assert state.is_completed(), state
    return config, state


@pytest.fixture
def copy(trained: tuple[Path, State], tmp_path: Path) -> Path:
    """A copy of the trained experiment. The source moves with it, so the root is kept in place."""
    folder = trained[0].parent
    shutil.copytree(folder / "workspace", tmp_path / "workspace")
    config = tmp_path / "field.toml"
    config.write_text(trained[0].read_text().replace("./tiles", str(folder / "tiles")))
    return config


def files_of(config: Path, *rooms: str) -> dict[Path, int]:
    """Files of these folders of the workspace with the times of their last change."""
    root = config.parent / "workspace"
    found = [p for room in rooms for p in (root / room).rglob("*") if p.is_file()]
    return {p: p.stat().st_mtime_ns for p in found if p.name != ".lock"}


def recorded(read: Callable[[Path], object], paths: list[Path]) -> Callable[[Path], object]:
    """`read`, with every path that it is called with appended to `paths`."""

    def record(path: Path) -> object:
        paths.append(path)
        return read(path)

    return record


def artifacts() -> dict[str, list[object]]:
    """Key to the data of every artifact with that key, oldest first."""
    with get_client(sync_client=True) as client:
        answer = client.request("POST", "/artifacts/filter", json={"sort": "ID_DESC"})
        found = sorted(answer.json(), key=lambda a: a["created"])
    by_key: dict[str, list[object]] = {}
    for artifact in found:
        by_key.setdefault(artifact["key"], []).append(artifact["data"])
    return by_key


@pytest.mark.usefixtures("prefect")
def test_a_run_creates_artifacts_of_progress_coverage_scores_and_predictions(
    trained: tuple[Path, State],
) -> None:
    found = artifacts()
    assert found["field-precompute-nir"][0] == pytest.approx(100.0)
    table = json.loads(str(found["field-coverage"][0]))
    assert {"what": "shards with red embeddings", "there": 3, "missing": 0, "stale": 0} in table
    scores = str(found["field-scores"][0])
    assert "| nir, red |" in scores
    assert "index.html" in scores
    assert str(found["field-predictions"][0]).startswith(
        "![nir, label, prediction](data:image/png;"
    )
    assert trained[1].name == "Completed"


@pytest.mark.usefixtures("prefect")
def test_a_scheduled_run_without_new_data_ends_as_nothing_to_do(
    trained: tuple[Path, State],
) -> None:
    config = trained[0]
    before = files_of(config, "datasets", "targets", "prompts", "runs")
    state: State = any2seg(str(config), when_due=True, return_state=True)
    assert state.name == "Nothing to do"
    assert "manifest unchanged" in str(state.message)
    assert files_of(config, "datasets", "targets", "prompts", "runs") == before


def run_that_failed_at_the_last_shard(field: Path, overrides: list[str]) -> None:
    """A scheduled run that fails, and the next one, which makes what lacks and nothing else again."""
    config = load_config(field, overrides)
    prepare(config, Workspace.of(config), progress=False)
    [tar] = (field.parent / "workspace/datasets").rglob("val-000000.tar")
    whole = tar.read_bytes()
    tar.chmod(0o644)
    tar.write_bytes(whole[:700] + bytes([whole[700] ^ 1]) + whole[701:])
    state: State = any2seg(str(field), overrides, when_due=True, return_state=True)
    assert state.is_failed()
    assert "precompute val-000000" in str(state.message)
    before = {p: t for p, t in files_of(field, "targets").items() if "/c/" in str(p)}
    assert len(before) == 4
    tar.write_bytes(whole)
    assert any2seg(str(field), overrides, when_due=True, return_state=True).is_completed()
    after = files_of(field, "targets")
    assert {p: after[p] for p in before} == before
    assert len([p for p in after if "/val/" in str(p) and "/c/" in str(p)]) == 2


@pytest.mark.proof
@pytest.mark.usefixtures("prefect")
def test_growth_below_the_threshold_is_embedded_without_retraining(field: Path) -> None:
    """A dataset of its own, since a copy of the tree would be another data set."""
    limit = ["schedule.retrain_growth_percent=50"]
    plain = ["student.lscd.inter=0", "student.lscd.intra=0"]
    run_that_failed_at_the_last_shard(field, [*limit, *plain])
    runs = files_of(field, "runs")
    targets = files_of(field, "targets")
    write_samples(field.parent / "tiles", "train", range(8, 9))
    state: State = any2seg(str(field), [*limit, *plain], when_due=True, return_state=True)
    assert state.name == "Student kept"
    assert "grew 8.3 % (12 to 13 samples, < 50 %)" in str(state.message)
    assert files_of(field, "runs") == runs
    after = files_of(field, "targets")
    objects = [p for p in targets if "/c/" in str(p)]
    assert all(after[p] == targets[p] for p in objects)
    assert len([p for p in after if "/c/" in str(p)]) == len(objects) + 2


@pytest.mark.usefixtures("prefect")
def test_an_audit_shows_drift_and_findings_and_fails_on_corrupt_data(copy: Path) -> None:
    before = files_of(copy, "datasets", "targets", "prompts", "runs")
    state: State = audit(str(copy), share=1.0, deep=True, return_state=True)
    assert state.is_completed(), state
    found = artifacts()
    drift = json.loads(str(found["field-drift"][-1]))
    assert {(row["modality"], row["output"]) for row in drift} >= {("nir", "embedding")}
    assert {row["rows"] for row in drift} == {12}
    assert {row["alarms"] for row in drift} == {0}
    assert json.loads(str(found["field-findings"][-1])) == []
    assert files_of(copy, "datasets", "targets", "prompts", "runs") == before
    [chunk] = (copy.parent / "workspace/targets").rglob("nir-*/targets.zarr/val/embedding/c/0/0")
    data = chunk.read_bytes()
    chunk.unlink()
    chunk.write_bytes(bytes([data[0] ^ 1]) + data[1:])
    state = audit(str(copy), deep=True, return_state=True)
    assert state.is_failed()
    assert str(chunk) in str(state.message)
    [finding] = json.loads(str(artifacts()["field-findings"][-1]))
    assert (finding["place"], finding["kind"]) == (str(chunk), "numbers altered")
    assert "any2seg repair" in finding["remedy"]


@pytest.mark.usefixtures("prefect")
def test_retraining_loads_the_text_tower_once_and_no_other(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[Path] = []
    for module in (text_tower, vision_tower):
        monkeypatch.setattr(module, "read_checkpoint", recorded(module.read_checkpoint, loaded))
    targets = files_of(copy, "targets")
    overrides = ["teacher.templates=driving", "student.backbone=mobilenetv3_small_050"]
    state: State = retrain(str(copy), overrides, return_state=True)
    assert state.is_completed(), state
    assert loaded == [find_text_tower(load_config(copy).teacher.name).directory]
    assert files_of(copy, "targets") == targets
    assert len([p for p in (copy.parent / "workspace/runs").iterdir() if p.is_dir()]) == 2


@pytest.mark.usefixtures("prefect")
def test_retraining_without_targets_is_refused_with_the_command(field: Path) -> None:
    config = load_config(field)
    prepare(config, Workspace.of(config), progress=False)
    state: State = retrain(str(field), return_state=True)
    assert state.is_failed()
    assert "MissingTarget" in str(state.message)
    assert "any2seg precompute" in str(state.message)
    assert not (field.parent / "workspace/runs").exists()


@pytest.mark.usefixtures("prefect")
def test_an_overlapping_run_is_skipped_and_names_the_holder(field: Path) -> None:
    with only_writer(Workspace.of(load_config(field)), "night-owl"):
        state: State = refresh_teacher(str(field), return_state=True)
    assert state.is_cancelled()
    assert state.name == "Skipped"
    assert "night-owl" in str(state.message)
    assert not (field.parent / "workspace/datasets").exists()


@pytest.mark.usefixtures("prefect")
def test_an_invalid_config_fails_the_run_before_any_stage(field: Path) -> None:
    state: State = any2seg(str(field), ["train.step=3"], return_state=True)
    assert state.is_failed()
    assert "did you mean steps" in str(state.message)
    assert not (field.parent / "workspace").exists()
    state = evaluate(str(field), ["workspace=s3://a:b@c/d"], return_state=True)
    assert state.is_failed()


@pytest.fixture
def receiver() -> Iterator[tuple[str, list[dict[str, str]]]]:
    """A webhook on loopback: its URL, and what was posted to it."""
    posted: list[dict[str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            posted.append(json.loads(body))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            return

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/hook", posted
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.usefixtures("prefect")
def test_a_failure_is_reported_with_stage_unit_cause_and_command(
    field: Path, receiver: tuple[str, list[dict[str, str]]]
) -> None:
    url, posted = receiver
    CustomWebhookNotificationBlock(
        name="loopback", url=url, json_data={"subject": "{{subject}}", "body": "{{body}}"}
    ).save("loopback", overwrite=True)
    # The file names a secret place: an error that repeats it must not reach anybody.
    field.write_text(field.read_text().replace("./tiles", f"/nowhere/{SECRET}"))
    overrides = ["notify.block=custom-webhook/loopback"]
    state: State = any2seg(str(field), overrides, return_state=True)
    assert state.is_failed()
    assert len(posted) == 1
    assert posted[0]["subject"] == "Any2Seg: any2seg failed"
    body = posted[0]["body"]
    assert "Stage: prepare\nUnit: main\n" in body
    assert "/nowhere/***" in body
    assert f"Resume: any2seg run {field} --set notify.block=custom-webhook/loopback" in body
    assert SECRET not in body


@pytest.mark.usefixtures("prefect")
def test_prefects_own_retry_resumes_at_the_first_missing_unit(field: Path, server: Server) -> None:
    tiles = field.parent / "tiles"
    tiles.rename(field.parent / "moved")
    state: State = refresh_teacher(str(field), return_state=True)
    assert state.is_failed()
    (field.parent / "moved").rename(tiles)
    run_id = str(state.state_details.flow_run_id)
    entrypoint = "flows.flows:refresh_teacher"
    done = subprocess.run(
        [sys.executable, "-m", "prefect", "flow-run", "retry", run_id, "--entrypoint", entrypoint],
        env=server.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    with get_client(sync_client=True) as client:
        run = client.read_flow_runs(
            flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[run_id]))
        )
    assert run[0].state is not None
    assert run[0].state.is_completed()
    assert any((field.parent / "workspace/targets").rglob("ledger/train/*.json"))


@pytest.mark.proof
@pytest.mark.usefixtures("prefect")
def test_a_flow_works_on_an_object_store(
    field: Path, prefix: RemotePath, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With credentials from the environment; the last test looks for them."""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    state: State = refresh_teacher(str(field), [f"workspace={prefix}"], return_state=True)
    assert state.is_completed(), state
    assert len(list((prefix / "targets").rglob("ledger/*/*.json"))) == 6
    with only_writer(Workspace(prefix), "night-owl"):
        state = refresh_teacher(str(field), [f"workspace={prefix}"], return_state=True)
    assert state.name == "Skipped"
    lost = str(prefix).replace("s3://", "s3://no-such-")
    state = refresh_teacher(str(field), [f"workspace={lost}"], return_state=True)
    assert state.is_failed()


def test_no_secret_is_in_the_servers_database(server: Server) -> None:
    """Runs last: what all flows of this module left there."""
    files = [p for p in server.home.iterdir() if p.name.startswith("prefect.db")]
    assert sum(p.stat().st_size for p in files) > 100_000
    data = b"".join(p.read_bytes() for p in files)
    assert b"/nowhere/***" in data
    assert SECRET.encode() not in data
