"""The README keeps its word: its commands and code run, its numbers come from files."""

import contextlib
import io
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from pages import ROOT, copy_sources, environment

README = ROOT / "README.md"
TEXT = README.read_text()
COMMANDS = [
    line
    for block in re.findall(r"^```sh\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
    for line in block.splitlines()
]
"""Commands of the README in their order; those of make set the environment up that tests run in."""


def test_setup_commands_are_targets_of_the_makefile() -> None:
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {line.split()[1] for line in COMMANDS if line.startswith("make ")}
    assert named == {"run", "test"}
    assert named | set(re.findall(r"`make (\w+)`", TEXT)) <= targets


def test_there_are_commands_and_no_other_programs() -> None:
    assert {line.split()[0] for line in COMMANDS} == {"make", "advpure"}


@pytest.mark.slow
def test_commands_run_one_after_another(tmp_path: Path) -> None:
    tree, scratch = tmp_path / "tree", tmp_path / "scratch"
    tree.mkdir()
    scratch.mkdir()
    copy_sources(tree)
    variables = environment(tree)
    for line in COMMANDS:
        if line.startswith("make "):
            continue  # it would make a second environment inside this one's test
        done = subprocess.run(
            ["sh", "-c", line], cwd=scratch, env=variables, capture_output=True, text=True,
            check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
        assert done.stdout.strip(), line
    assert (scratch / "runs" / "pictures" / "images.png").stat().st_size > 1000
    assert (scratch / "cr.png").stat().st_size > 1000
    assert len((scratch / "records.csv").read_text().splitlines()) == 1 + 3 * 16


@pytest.mark.slow
def test_python_example_runs_and_is_short() -> None:
    (code,) = re.findall(r"^```python\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
    assert len(code.splitlines()) <= 10
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        exec(compile(code, "README.md", "exec"), {})
    robust, rate = (float(line.split(":")[1]) for line in output.getvalue().splitlines())
    assert 0 <= robust <= 1
    assert 0 < rate < 1


def test_table_of_verbs_is_the_command_line() -> None:
    from typer.main import get_command

    from advpure.cli import app

    section = TEXT.split("## The command line")[1].split("```")[0]
    listed = re.findall(r"^\| `([\w-]+)` \|", section, re.MULTILINE)
    assert set(listed) == set(get_command(app).list_commands(None))  # type: ignore[attr-defined,arg-type]


def test_the_readme_is_short() -> None:
    assert len(TEXT.splitlines()) <= 250


def test_generated_blocks_are_what_the_script_renders() -> None:
    sys.path.insert(0, str(ROOT))
    try:
        from benchmarks.readme import MAKERS, PAGES, VERDICTS, render
    finally:
        sys.path.remove(str(ROOT))
    texts = {page: page.read_text() for page in PAGES}
    names = re.findall(r"<!-- generated: ([\w-]+) -->", "".join(texts.values()))
    assert sorted(names) == sorted(MAKERS)
    for page, text in texts.items():
        assert render(text) == text, f"{page.name}: run python -m benchmarks.readme"
    assert VERDICTS.stat().st_size > 10_000


def test_the_page_of_reproductions_is_made_from_what_is_stored() -> None:
    sys.path.insert(0, str(ROOT))
    try:
        from benchmarks.reproductions import PAGE, page
    finally:
        sys.path.remove(str(ROOT))
    assert page() == PAGE.read_text(), "run python -m benchmarks.reproductions"


def test_numbers_are_not_stored_beside_a_picture_of_earlier_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks import reproductions

    monkeypatch.setattr(reproductions, "MEASURED", tmp_path)
    monkeypatch.setattr(reproductions, "PICTURES", tmp_path)
    drawn, output = tmp_path / "drawn.png", tmp_path / "output.json"
    drawn.write_bytes(b"new")
    found = {"failed": {}, "left": [], "sweep": "x", "experiment": "000:table-2", "size": "small"}
    output.write_text(json.dumps({**found, "plot": str(drawn)}))
    stored = reproductions.store(output)
    assert (tmp_path / "000-table-2-small.png").read_bytes() == b"new"
    assert "plot" not in json.loads(stored.read_text())
    before = stored.read_bytes()
    output.write_text(json.dumps({**found, "title": "newer"}))
    with pytest.raises(ValueError, match=r"has no picture, and 000-table-2-small\.png is one"):
        reproductions.store(output)
    assert stored.read_bytes() == before


def test_measured_files_name_no_machine() -> None:
    files = sorted((ROOT / "experiments" / "measured").glob("*.json"))
    assert files
    for path in files:
        stored = json.loads(path.read_text())
        if "experiment" in stored:
            assert path.stem == f"{stored['experiment'].replace(':', '-')}-{stored['size']}"
            assert not Path(stored.get("sweep", "runs")).is_absolute()
        else:
            assert stored["command"].startswith("advpure ")
            assert not Path(stored["result"]["run"]).is_absolute()
        assert not re.search(r'"/|/home/|/tmp/', path.read_text()), path.name
