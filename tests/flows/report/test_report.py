"""The report stage on real files of a small made-up run: one page, self-contained, true to its inputs."""

import html
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from flows.report.report import PAGE, RECORD, report, report_is_current
from pipeline.config.config import Config
from pipeline.config.load import row_config
from pipeline.errors import Any2SegError, ConfigError, CorruptShard
from pipeline.shards.manifest import Manifest, shard_path
from pipeline.storage.files import read_json, write_json
from pipeline.workspace import Workspace
from tests.flows.made_up_run import CHANCE, folder_config, prepare_all, write_pictures, write_run
from tests.student.runs.test_inputs import opens_counted

KINDS = {"rgb": "rgb", "depth": "depth", "nir": "gray"}
COMPARE = 'compare = { plain = ["student.fusion=mean"], later = ["seed=5"] }'
VOID = {"meta", "link", "img", "br", "path", "use"}


class Page(HTMLParser):
    """Tags with their attributes, the visible text, and whether every tag is closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.tags if name == tag]


def made_up(
    root: Path,
    kinds: dict[str, str] = KINDS,
    num_classes: int = 4,
    size: tuple[int, int] = (24, 40),
    extra: str = "",
    num_pictures: int = 2,
) -> Config:
    """A config whose main run is finished and scored."""
    write_pictures(root / "source", kinds, num_classes, *size)
    classes = [f"class-{n}" for n in range(num_classes)]
    config = folder_config(root, kinds, classes, extra=extra, num_pictures=num_pictures)
    write_run(config, prepare_all(config))
    return config


def render(config: Config) -> tuple[Path, str]:
    page = Path(report(config, Workspace.of(config)).details["page"])
    return page, page.read_text()


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    config = made_up(tmp_path_factory.mktemp("made-up"), extra=COMPARE)
    manifest = Manifest.load(Workspace.of(config).dataset(config))
    write_run(row_config(config, "plain"), manifest, base=0.2)
    return config


@pytest.fixture(scope="module")
def text(config: Config) -> str:
    return render(config)[1]


def test_the_page_loads_no_external_resource(text: str) -> None:
    page = Page(text)
    assert not {"script", "iframe", "object", "base"} & {tag for tag, _ in page.tags}
    links = [a[n] for _, a in page.tags for n in ("src", "href", "xlink:href", "srcset") if n in a]
    assert links
    assert all(link.startswith(("data:", "#")) for link in links)
    assert all(reference.startswith("#") for reference in re.findall(r"url\(([^)]*)\)", text))
    assert "@import" not in text


def test_the_page_is_accessible(text: str) -> None:
    page = Page(text)
    assert all(image["alt"] for image in page.all("img"))
    assert all(head["scope"] in ("col", "row") for head in page.all("th"))
    assert all(chart["role"] == "img" and chart["aria-label"] for chart in page.all("svg"))
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    targets = {a["aria-labelledby"] for _, a in page.tags if "aria-labelledby" in a}
    targets |= {a["href"][1:] for _, a in page.tags if a.get("href", "").startswith("#")}
    assert targets <= set(ids)


def test_the_page_names_the_toy_as_the_teacher_of_real_images_once(text: str) -> None:
    assert Page(text).text.count("rendered street scenes") == 1


def test_every_subset_and_row_is_printed(config: Config, text: str) -> None:
    words = Page(text).text
    workspace = Workspace.of(config)
    scores = [read_json(path) for path in workspace.runs.glob("*/evaluation.json")]
    assert len(scores) == 2
    for subset in (subset for run in scores for subset in run["subsets"]):
        assert " + ".join(subset["modalities"]) in words
        assert f"{100 * subset['miou']:.1f}" in words
    assert f"{100 * CHANCE:.1f}" in words
    assert "Not scored yet: later." in words
    assert "student.fusion=mean" in words


def test_images_cost_and_fingerprints_are_shown(config: Config, text: str) -> None:
    page = Page(text)
    # three inputs, the label, three single predictions and the full one, for each of two samples
    assert len(page.all("img")) == 2 * 8
    manifest = Manifest.load(Workspace.of(config).dataset(config))
    assert manifest.digest() in page.text
    # a modality's four shards took 0.25 s each, for six samples
    assert "1.0 s 167 ms 144 B" in page.text
    assert "3.0 s 500 ms 432 B" in page.text
    assert "One student looks at 80 samples" in page.text
    assert "[dataset]" in page.text


def test_an_unchanged_report_is_not_redrawn(config: Config, text: str) -> None:
    workspace = Workspace.of(config)
    page, _ = render(config)
    before = page.stat().st_mtime_ns
    again = report(config, workspace)
    assert (again.done, again.skipped) == (0, 1)
    assert page.stat().st_mtime_ns == before
    assert page.read_text() == text
    assert report_is_current(config, workspace)
    page.unlink()
    assert not report_is_current(config, workspace)
    assert report(config, workspace).done == 1
    assert page.read_text() == text


def test_a_changed_score_or_a_row_that_finishes_redraws_it(tmp_path: Path) -> None:
    config = made_up(tmp_path, extra=COMPARE, num_pictures=0)
    workspace = Workspace.of(config)
    page, first = render(config)
    assert "Not scored yet: plain, later." in Page(first).text
    manifest = Manifest.load(workspace.dataset(config))
    write_run(row_config(config, "later"), manifest)
    assert "Not scored yet: plain." in Page(render(config)[1]).text
    scores = read_json(page.parent.parent / "evaluation.json")
    write_json(page.parent.parent / "evaluation.json", scores | {"all": 0.98765})
    assert "98.8" in Page(render(config)[1]).text


def test_an_unscored_run_names_the_next_command(tmp_path: Path) -> None:
    write_pictures(tmp_path / "source", KINDS, 3, 16, 16)
    config = folder_config(tmp_path, KINDS, ["a", "b", "c"])
    prepare_all(config)
    assert not report_is_current(config, Workspace.of(config))
    with pytest.raises(Any2SegError, match="any2seg evaluate CONFIG"):
        report(config, Workspace.of(config))


def test_without_matplotlib_the_error_gives_the_command(
    config: Config, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    page, _ = render(config)
    (page.parent / RECORD).unlink()
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ConfigError, match=re.escape("pip install 'any2seg[report]'")):
        report(config, Workspace.of(config))
    assert page.read_text() == text


@pytest.mark.parametrize(
    ("kinds", "num_classes", "size", "num_pictures"),
    [
        ({"thermal": "thermal"}, 2, (20, 33), 1),
        ({"event": "event", "lidar": "depth"}, 40, (400, 90), 2),
        (KINDS, 2, (16, 16), 0),
    ],
)
def test_any_number_of_modalities_classes_and_images(
    tmp_path: Path,
    kinds: dict[str, str],
    num_classes: int,
    size: tuple[int, int],
    num_pictures: int,
) -> None:
    text = render(made_up(tmp_path, kinds, num_classes, size, num_pictures=num_pictures))[1]
    page = Page(text)
    num_figures = 3 if len(kinds) == 1 else 2 * (len(kinds) + 1)
    assert len(page.all("img")) == num_pictures * num_figures
    assert f"class-{num_classes - 1}" in page.text
    assert "has no conditions" in page.text


def test_refused_samples_are_named_with_the_reason(tmp_path: Path) -> None:
    write_pictures(tmp_path / "source", KINDS, 3, 16, 16)
    (tmp_path / "source" / "nir" / "train" / "1.png").write_bytes(b"not a picture")
    config = folder_config(tmp_path, KINDS, ["a", "b", "c"], num_pictures=0)
    write_run(config, prepare_all(config))
    words = Page(render(config)[1]).text
    assert "1 of 6 samples were refused" in words
    assert "train_1" in words
    assert "nir/train/1.png" in words


def test_a_name_is_text_not_markup(tmp_path: Path) -> None:
    write_pictures(tmp_path / "source", KINDS, 2, 16, 16)
    name = '<b onload="x">&amp; road</b>'
    config = folder_config(tmp_path, KINDS, [name, "other"], num_pictures=0)
    write_run(config, prepare_all(config))
    text = render(config)[1]
    assert name not in text
    assert html.escape(name, quote=False) in text.replace("&#34;", '"')
    assert name in Page(text).text


def test_an_absent_modality_and_class_are_shown_as_such(tmp_path: Path) -> None:
    write_pictures(tmp_path / "source", KINDS, 2, 16, 16)
    for path in (tmp_path / "source" / "nir" / "test").iterdir():
        path.unlink()
    config = folder_config(tmp_path, KINDS, ["a", "b", "never"], missing="allow")
    write_run(config, prepare_all(config))
    words = Page(render(config)[1]).text
    assert words.count("no input") == 2
    assert "never 0 absent" in words


@pytest.mark.parametrize("shift", [40, -1], ids=["image", "tar header"])
def test_a_corrupted_shard_is_refused_by_name(tmp_path: Path, shift: int) -> None:
    config = made_up(tmp_path)
    dataset = Workspace.of(config).dataset(config)
    row = Manifest.load(dataset).rows("test")[0]
    span = next(m for m in row["members"] if m["name"] == "depth.npy.zst")
    tar = shard_path(dataset, "test", row["shard"])
    tar.chmod(0o644)
    data = bytearray(tar.read_bytes())
    data[span["offset"] + shift] ^= 0xFF
    tar.write_bytes(data)
    with pytest.raises(CorruptShard, match=rf"{tar.name}: expected sha256 .*any2seg prepare"):
        report(config, Workspace.of(config))
    assert not list(tmp_path.rglob(PAGE))


def test_drawing_needs_no_torch(config: Config, text: str, tmp_path: Path) -> None:
    page, _ = render(config)
    (page.parent / RECORD).unlink()
    toml = Path(config.dataset.model_dump()["root"]).parent / "made-up.toml"
    script = (
        "import sys\n"
        "sys.modules['torch'] = sys.modules['transformers'] = sys.modules['prefect'] = None\n"
        "from flows.report.report import report\n"
        "from pipeline.config.load import load_config\n"
        "from pipeline.workspace import Workspace\n"
        f"config = load_config({str(toml)!r})\n"
        "assert report(config, Workspace.of(config)).done == 1\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert page.read_text() == text


def test_the_inputs_are_opened_exactly_once(tmp_path: Path) -> None:
    config = made_up(tmp_path)
    for number in ("done", "skipped"):
        with opens_counted() as counts:
            done = report(config, Workspace.of(config))
        assert getattr(done, number) == 1
        stores = len(config.modalities)
        assert counts == {
            "open_inputs": 1,
            "Manifest.load": 1,
            "look_up": stores + 1,
            "TargetStore.open": stores,
            "PromptStore.open": 1,
        }
