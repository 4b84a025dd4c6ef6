"""The documentation as a site: every link leads somewhere, every public name has its entry."""

import subprocess
import sys
from pathlib import Path

import pytest

import advpure
from advpure import analysis, attacks

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_the_site_is_built_and_refers_every_public_name(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    pages = "".join(page.read_text() for page in (tmp_path / "reference").rglob("index.html"))
    for package in (advpure, attacks, analysis):
        for name in package.__all__:
            thing = getattr(package, name)
            module = getattr(thing, "__module__", "")
            if callable(thing) and module.startswith("advpure."):
                assert f'id="{module}.{name}"' in pages, name
