"""Every page in docs/ does what it says: its files, registry lines, code and commands are run."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from pages import blocks, copy_sources, environment

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
