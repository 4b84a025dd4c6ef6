"""Every page in docs/ does what it says: its files, registry lines, code and commands are run."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from pages import blocks, copy_sources, environment
from sources import modules

from advpure.runs.records import RecordStore

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs").glob("*.md"))
RUNNER = Path(__file__).with_name("pages.py")


def run_page(page: Path, folder: Path) -> None:
    tree, scratch = folder / "tree", folder / "scratch"
    tree.mkdir()
    scratch.mkdir()
    copy_sources(tree)
    done = subprocess.run(
        [sys.executable, str(RUNNER), str(page), str(tree)],
        cwd=scratch, env=environment(tree), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_there_is_a_page_for_each_thing_that_can_be_added() -> None:
    names = {page.stem for page in PAGES}
    assert {f"new-{thing}" for thing in ("purifier", "attack", "denoiser", "metric")} <= names


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_page_runs(page: Path, tmp_path: Path) -> None:
    run_page(page, tmp_path)


@pytest.mark.parametrize("page", [*PAGES, ROOT / "README.md"], ids=lambda page: page.stem)
def test_pages_that_invite_edits_say_what_a_run_is_named_by(page: Path) -> None:
    if page.stem.startswith("new-") or page.stem in ("records", "README"):
        said = " ".join(page.read_text().split())
        assert "A run is named by its settings, not by your code" in said


@pytest.mark.slow
def test_a_run_of_edited_code_reports_the_old_rows_with_a_note(tmp_path: Path) -> None:
    tree, scratch = tmp_path / "tree", tmp_path / "scratch"
    tree.mkdir()
    scratch.mkdir()
    copy_sources(tree)
    variables = environment(tree)

    def attack(out: str) -> "subprocess.CompletedProcess[str]":
        line = (
            "advpure attack --dataset digits --fix-random -n 4 --steps 1 --eps 0.6 --step-size 0.6"
        )
        return subprocess.run(
            [*line.split(), "--out", out],
            cwd=scratch,
            env=variables,
            capture_output=True,
            text=True,
            check=True,
        )

    first = attack("runs/a")
    own = tree / "advpure" / "purifiers" / "cm.py"
    text = own.read_text()
    own.write_text(text.replace("return Chain(chain)", "return Chain(chain[::-1])"))
    assert own.read_text() != text
    again = attack("runs/a")
    assert again.stdout == first.stdout
    assert "note: the code of advpure.purifiers.cm changed" in again.stderr
    assert "note: already complete, reported from records" in again.stderr
    attack("runs/b")
    margins = []
    for name in ("a", "b"):
        with RecordStore.read(scratch / "runs" / name) as store:
            margins.append([row["margin"] for row in store.rows("decisions")])
    assert margins[0] != margins[1]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_page_names_every_file_that_it_shows(page: Path) -> None:
    """Readers do not see info strings: the sentence before a block names its file."""
    text = page.read_text()
    for path, where in [(m[1], m.start()) for m in re.finditer(r"^```\w+ +(\S+)$", text, re.M)]:
        assert f"`{path}`" in text[:where].strip().splitlines()[-1], path


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_files_on_pages_keep_the_style(page: Path, tmp_path: Path) -> None:
    for block in blocks(page.read_text()):
        if block.language != "python":
            continue
        (tmp_path / "block.py").write_text(block.text)
        ignored = [] if block.path else ["--ignore", "D,I,F,E402"]
        for check in (["check", "--no-cache", *ignored], ["format", "--check", "--no-cache"]):
            done = subprocess.run(
                [sys.executable, "-m", "ruff", *check, "--config", str(ROOT / "pyproject.toml"),
                 str(tmp_path / "block.py")],
                capture_output=True, text=True, check=False,
            )  # fmt: skip
            assert done.returncode == 0, f"line {block.line}: {done.stdout}{done.stderr}"


def test_links_between_pages_lead_somewhere() -> None:
    for page in [*PAGES, ROOT / "README.md", ROOT / "experiments" / "README.md"]:
        for link in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
            assert (page.parent / link).exists(), f"{page.name}: {link}"


def test_every_work_that_a_source_cites_is_in_the_bibliography() -> None:
    key = re.compile(r"\[([A-Z][A-Za-z]+(?:18|19|20)\d\d[a-z]?)\]")
    listed = re.findall(rf"^\| {key.pattern}", (ROOT / "docs/bibliography.md").read_text(), re.M)
    assert listed == sorted(set(listed))
    cited = {name: set(key.findall(path.read_text())) for name, path in modules().items()}
    assert set().union(*cited.values())
    assert {name: keys - set(listed) for name, keys in cited.items() if keys - set(listed)} == {}
