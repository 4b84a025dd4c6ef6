"""The registry: lazy, helpful about misspellings, strict about registering."""

import sys
from pathlib import Path

import pytest

from advpure.errors import BadInput
from advpure.registry import Registry


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


def test_a_stale_target_fails_loudly() -> None:
    registry = _defenses()
    registry.register("stale", "math:no_such_function")
    with pytest.raises(AttributeError, match="no_such_function"):
        registry.get("stale")
