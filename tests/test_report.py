"""One page about runs: whole, self-contained, and with every number that it is made of."""

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import torch
from quick_studies import finished, quick

from advpure.base.errors import BadInput
from advpure.cli import run
from advpure.report.leaderboard import boards
from advpure.report.page import Reporting, render
from advpure.report.pictures import FOOLED, HELD, WRONG, judge, png
from advpure.report.runs import Run, flat_estimates, run_folders
from advpure.runs.records import RecordStore
from advpure.studies import STUDIES

_VOID = {"meta", "img", "br", "hr", "link", "input"}
_LOADING = {"src", "href", "srcset", "data", "poster", "action"}


class Page(HTMLParser):
    """A page that is parsed: its tags are balanced, its text and addresses are kept."""

    def __init__(self, text: str) -> None:
        """Parse the text."""
        super().__init__()
        self.open: list[str] = []
        self.words: list[str] = []
        self.addresses: list[str] = []
        self.tags: list[str] = []
        self.data: list[Any] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Remember a tag and the addresses in it."""
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in _LOADING]
        if tag not in _VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        """Check that it ends what was begun last."""
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        """Keep text; what scripts hold is data."""
        if self.open and self.open[-1] == "script":
            self.data.append(json.loads(data))
        elif self.open and self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        """The text that is shown."""
        return " ".join(" ".join(self.words).split())


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make runs to report: attacks of two defenses at two radii, one of them with its images."""
    folder = tmp_path_factory.mktemp("report")
    options: dict[str, Any] = {"n": 6, "draws": None, "randomness": "fixed"}
    options |= {"attack_options": {"steps": 30}}
    blurred = {"defense": "onestep-ddpm", "t": 900}  # wrong about some clean images
    quick("attack", **options, **blurred, eps=0.3, keep_images=True).run(out=folder / "kept")
    for name, eps in (("weak", 0.05), ("strong", 0.3)):
        quick("attack", **options, eps=eps).run(out=folder / name)
    quick("attack", **{**options, "defense": "none"}, eps=0.3).run(out=folder / "none")
    quick("attack", n=6, eps=0.3).run(out=folder / "fresh")
    quick("cr").run(out=folder / "cr")
    return folder


def page(*folders: Path, **more: Any) -> Page:
    settings = {"layout": "runs", "images": 24, **more}
    return Page(render([Run.read(folder) for folder in folders], **settings))


def test_a_page_fetches_nothing_and_holds_its_numbers(root: Path) -> None:
    found = page(root / "kept", root / "fresh", root / "cr")
    assert found.addresses
    assert all(each.startswith(("data:image/", "#")) for each in found.addresses)
    assert "script" not in {tag for tag in found.tags if tag != "script"}
    assert len(found.data) == 3
    for name, data in zip(("kept", "fresh", "cr"), found.data, strict=True):
        report = Run.read(root / name).report
        assert data == json.loads(json.dumps(report.to_json()))
        for at, estimate in flat_estimates(report.tree()):
            assert f" {at} {estimate.value:.6g}" in f" {found.text}", at
            if estimate.interval is not None:
                low, high = estimate.interval
                assert f"[{low:.6g}, {high:.6g}]" in found.text, at


@pytest.mark.slow
@pytest.mark.parametrize("verb", STUDIES.names())
def test_every_study_has_a_page(verb: str, tmp_path: Path) -> None:
    finished(verb, tmp_path / "run")
    told = page(tmp_path / "run")
    assert told.text.count("advpure verify") == 1
    if verb != "attack":  # which says more than its headline
        assert " ".join(Run.read(tmp_path / "run").report.display().headline.split()) in told.text
    assert all(each.startswith(("data:image/", "#")) for each in told.addresses)


def test_the_verdict_names_strength_steps_and_budget(root: Path) -> None:
    text = page(root / "strong").text
    report = Run.read(root / "strong").report.to_json()
    share = f"{100 * report['robust_accuracy']:.1f}"
    assert f"cm sigma=0.25 keeps {share} [" in text
    assert "of 6 images of digits right when pgd (30 steps of 0.01, loss ce)" in text
    assert "may change every pixel by up to 0.3 (linf)" in text
    with RecordStore.read(root / "strong") as store:
        rows = store.rows("attacks", {"stage": "adversarial"})
    for column, name in (("forwards", "forward"), ("backwards", "backward")):
        assert f"{sum(row[column] for row in rows):,} {name} passes through the defense" in text
    assert "on the mean over fresh decisions" in page(root / "fresh").text


def test_settings_versions_hashes_and_the_command_are_there(root: Path) -> None:
    text = page(root / "strong").text
    with RecordStore.read(root / "strong") as store:
        context, settings = store.context, store.settings
    assert torch.__version__ in text
    for digest in (*context["weights"].values(), *context["sources"].values()):
        assert digest in text
    for key in settings["attack"]:
        assert key in text.split()
    assert "advpure attack --defense cm --dataset digits --n 6 --eps 0.3" in text
    assert "--fix-random" in text


def test_wrong_before_the_attack_is_not_fooled(root: Path) -> None:
    with RecordStore.read(root / "kept") as store:
        judged = judge(store, range(1000))
        rows = store.rows("decisions")
    right = {(row["stage"], row["sample"]): row["correct"] for row in rows}
    for each in judged:
        clean, attacked = (right[stage, each.sample] for stage in ("clean", "adversarial"))
        assert each.fate == (WRONG if not clean else HELD if attacked else FOOLED)
    counts = {fate: sum(each.fate == fate for each in judged) for fate in (HELD, FOOLED, WRONG)}
    assert counts[WRONG] > 0
    assert sum(counts.values()) == 6
    found = page(root / "kept")
    for fate, count in counts.items():
        assert f"{count} {fate.name} {fate.words}" in found.text
    for each in judged:
        label, answer = each.clean[0], each.attacked[0]
        assert f"answers {label} → {answer} · image {each.sample}" in found.text


def test_images_are_those_that_were_kept(root: Path) -> None:
    found = page(root / "kept")
    with RecordStore.read(root / "kept") as store:
        for kind in ("clean", "adversarial", "purified"):
            assert png(store.get_blob(f"{kind}/0")) in found.addresses
        change = store.get_blob("adversarial/0") - store.get_blob("clean/0")
    assert png(0.5 + change / 0.6) in found.addresses
    pictures = [each for each in found.addresses if each.startswith("data:image/png")]
    assert len(pictures) == 4 * 6
    fewer = page(root / "kept", images=2)
    assert len([each for each in fewer.addresses if each.startswith("data:image/png")]) == 8
    assert "2 of 6 images, the first by id" in fewer.text
    assert "The run kept no images" in page(root / "strong").text


@pytest.mark.slow
def test_runs_that_differ_in_epsilon_are_drawn_over_it(root: Path) -> None:
    assert "attack over epsilon" in page(root / "weak", root / "strong").text
    assert "attack over epsilon" not in page(root / "strong", root / "none").text


def test_a_leaderboard_ranks_within_a_threat_model(root: Path) -> None:
    runs = [Run.read(root / name) for name in ("none", "strong", "fresh", "weak")]
    weak, strong = boards(runs)
    assert [line.run.folder.name for line in weak.lines] == ["weak"]
    ranked = [line.run.report.to_json()["robust_accuracy"] for line in strong.lines]
    assert ranked == sorted(ranked, reverse=True)
    assert strong.lines[0].place == 1
    policy = strong.columns.index("draw policy")
    policies = {line.run.folder.name: line.cells[policy] for line in strong.lines}
    assert policies["strong"] == "fixed: seed 0"
    assert policies["fresh"] == "fresh: mean over 2 decisions"
    behind = strong.columns.index("behind the first")
    assert strong.lines[0].cells[behind] == ""
    assert float(strong.lines[-1].cells[behind].split()[0]) == pytest.approx(
        100 * (ranked[0] - ranked[-1]), abs=0.06
    )
    found = page(root / "none", root / "strong", layout="leaderboard")
    assert "Leaderboard: digits" in found.text
    assert found.tags.count("table") == 1
    with pytest.raises(BadInput, match="is a run of cr, not of attack, certify"):
        boards([Run.read(root / "cr")])


def test_the_verb_writes_the_same_page_again(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, again = tmp_path / "a.html", tmp_path / "deep" / "b.HTML"
    assert run(["report", str(root / "kept"), "--to", str(first)]) == 0
    assert capsys.readouterr().out == f"report: {first}\n"
    assert run(["report", str(root / "kept"), "--to", str(again), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"report": str(again)}
    assert first.read_bytes() == again.read_bytes()
    assert not re.search(r"""(src|href)=["']?\w*https?:""", first.read_text())


def test_a_run_is_named_once(root: Path) -> None:
    folder = next(each for each in sorted(root.iterdir()) if each.is_dir())
    with pytest.raises(BadInput, match="is given twice; name each once"):
        list(run_folders([folder, folder / ".." / folder.name]))


def test_what_is_no_page_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"report.pdf is no page; end it in .html"):
        Reporting(runs=("absent",), to="report.pdf")
    with pytest.raises(BadInput, match="no run is nothing to report"):
        Reporting()
    with pytest.raises(BadInput, match="is no run folder"):
        Reporting(runs=(tmp_path,), to=tmp_path / "a.html").write()
    assert not (tmp_path / "a.html").exists()


def test_texts_from_outside_are_escaped(root: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(root / "cr", tmp_path / "<b>&'\""))
    text = render([Run.read(folder)], layout="runs", images=0, title="<script>alert(1)</script>")
    assert "<script>alert" not in text
    assert "<b>" not in text
    Page(text)


def test_a_sweep_stands_for_its_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("law.yaml").write_text(
        "verb: cr\nbase: {dataset: digits, n: 2, defense: none, perturbations: 1}\n"
        "grid: {eps: [0.1, 0.2]}\n"
    )
    assert run(["sweep", "law.yaml", "--jobs", "1", "--quiet"]) == 0
    (folder,) = Path("runs").glob("sweep-*")
    Reporting(runs=(folder,), to="page.html").write()
    assert len(Page(Path("page.html").read_text()).data) == 2


@pytest.mark.slow
def test_a_browser_shows_it_narrow_and_wide_light_and_dark(root: Path, tmp_path: Path) -> None:
    api = pytest.importorskip("playwright.sync_api")
    browser = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)
    if browser is None:
        pytest.skip("there is no browser here")
    pages = []
    for layout, names in (("runs", ("kept", "strong", "cr")), ("leaderboard", ("none", "strong"))):
        pages.append(tmp_path / f"{layout}.html")
        folders = tuple(root / name for name in names)
        Reporting(runs=folders, to=pages[-1], layout=layout).write()  # type: ignore[arg-type]
    with api.sync_playwright() as player:
        chromium = player.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        for path in pages:
            backgrounds = set()
            for width in (400, 1200):
                for scheme in ("light", "dark"):
                    context = chromium.new_context(
                        viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True
                    )
                    view, asked, told = context.new_page(), [], []
                    view.on("request", lambda request, seen=asked: seen.append(request.url))
                    view.on("console", lambda message, seen=told: seen.append(message.text))
                    view.goto(path.as_uri())
                    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
                    assert told == []
                    assert view.evaluate("document.documentElement.scrollWidth") <= width
                    broken = "[...document.images].filter(each => !each.naturalWidth).length"
                    assert view.evaluate(broken) == 0
                    backgrounds.add(
                        view.evaluate("getComputedStyle(document.body).backgroundColor")
                    )
                    context.close()
            assert len(backgrounds) == 2
            view = chromium.new_page()
            view.goto(path.as_uri())
            assert view.pdf(format="A4").startswith(b"%PDF")
        chromium.close()
