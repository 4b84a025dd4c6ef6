"""The registry: lazy, helpful about misspellings, strict about registering."""

import sys
from pathlib import Path

import pytest

from advpure.base.errors import BadInput
from advpure.base.registry import Registry


def _defenses() -> Registry[object]:
    registry: Registry[object] = Registry("defense")
    registry.register("none", "math:tau", about="no purifier")
    registry.register("ddpm", "math:pi", about="forward, then ancestral reverse")
    registry.register("ddim", "math:e", about="deterministic reverse")
    return registry


def test_get_follows_module_and_attribute() -> None:
    import math

    registry = _defenses()
    registry.register("nested", "pathlib:Path.cwd")
    assert registry.get("ddpm") == math.pi
    assert registry.get("nested") == Path.cwd


def test_objects_are_returned_as_they_are() -> None:
    registry: Registry[object] = Registry("thing")
    thing = object()
    registry.register("it", thing)
    assert registry.get("it") is thing


def test_listing_and_describing_import_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "advpure_probe_module.py").write_text("answer = 42\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    registry: Registry[int] = Registry("probe")
    registry.register("lazy", "advpure_probe_module:answer", about="imported late")
    assert registry.names() == ("lazy",)
    assert registry.about("lazy") == "imported late"
    assert "lazy" in registry
    assert list(registry) == ["lazy"]
    assert len(registry) == 1
    assert "advpure_probe_module" not in sys.modules
    assert registry.get("lazy") == 42
    assert sys.modules.pop("advpure_probe_module").answer == 42


@pytest.mark.parametrize("typed", ["ddmp", "DDPM", "ddpmm"])
def test_misspelling_names_the_nearest(typed: str) -> None:
    with pytest.raises(BadInput) as caught:
        _defenses().get(typed)
    assert caught.value.subject == f"defense {typed!r}"
    assert caught.value.rule == "is not known"
    assert caught.value.fix.startswith("did you mean ddpm")
    assert caught.value.fix.endswith("known: none, ddpm, ddim")


def test_a_name_like_no_other_lists_the_known_ones() -> None:
    with pytest.raises(BadInput, match="known: none, ddpm, ddim") as caught:
        _defenses().about("quantum")
    assert "did you mean" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "target"),
    [("ddpm", "math:pi"), ("", "math:pi"), ("a b", "math:pi"), ("x", "math.pi"), ("x", ":pi")],
)
def test_unusable_registrations_are_refused(name: str, target: str) -> None:
    with pytest.raises(ValueError, match="defense"):
        _defenses().register(name, target)


@pytest.mark.parametrize(
    ("target", "missing"),
    [
        ("math:no_such_function", "math:no_such_function"),
        ("pathlib:Path.no_such_method", "pathlib:Path.no_such_method"),
        ("advpure.purifiers.blured:Blurred", "advpure.purifiers.blured"),
        ("no_such_package.module:name", "no_such_package"),
    ],
)
def test_a_stale_registry_line_is_one_line(target: str, missing: str) -> None:
    registry = _defenses()
    registry.register("stale", target)
    with pytest.raises(BadInput) as caught:
        registry.get("stale")
    said = f"defense 'stale' names {missing}, which does not exist; check its registry line"
    assert str(caught.value) == said


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("import no_such_extra", ModuleNotFoundError),
        ("from math import no_such_function", ImportError),
        ("import math; math.no_such_function", AttributeError),
    ],
)
def test_what_is_missing_inside_the_target_surfaces_as_itself(
    line: str, kind: type[Exception], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "advpure_probe_inner.py").write_text(f"{line}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    registry = _defenses()
    registry.register("own", "advpure_probe_inner:thing")
    with pytest.raises(kind, match="no_such"):
        registry.get("own")
