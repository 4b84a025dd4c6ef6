"""The runs behind the tables on fixed randomness, as settings of `Robustness.run`.

[Wei2025], tables S2 and S3 (with and without fixed randomness), S4 (attacks crafted under one
configuration, decided under another) and S5 (correlation of perturbations). Every attack takes all
its steps, as the paper's do, and every run starts its attack elsewhere in the ball: a shared start
would correlate perturbations that have nothing else in common.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from advpure.analysis.robustness.study import Robustness
from advpure.attacks.registry import find, settings_type
from advpure.attacks.settings import GradientSettings
from advpure.base.errors import BadInput

FRESH, EOT = "fresh", "fresh-eot"
_OWN = ("eot", "seed", "randomness")


def fixed_name(seed: int) -> str:
    """Return the name of the run under one fixed base seed.

    Example:
        >>> fixed_name(3)
        'fixed-3'
    """
    return f"fixed-{seed}"


def fixed_randomness_settings(
    base: Robustness, *, seeds: Sequence[int], eot: int | None, draws: int | None = None
) -> dict[str, Robustness]:
    """Lay out tables S2 and S3: one attack with fixed randomness, with fresh, and averaged.

    Args:
        base: Subject, attack (``pgd`` for S2, ``bpda`` for S3) and radius; its randomness, seeds
            and draws are replaced.
        seeds: Base seeds of the fixed configurations, two or more, so that an attack under one can
            be decided under another; the first is that of fresh randomness too.
        eot: Draws per gradient of the averaged attack; None leaves it out.
        draws: Decisions per image under fresh randomness; None for 10.

    Returns:
        Run name to settings: ``fixed-SEED`` for every seed, ``fresh``, ``fresh-eot``.

    Raises:
        BadInput: for an attack without gradient or with an average of its own, or fewer than two
            seeds.

    Example:
        >>> sorted(fixed_randomness_settings(Robustness(attack="pgd"), seeds=(0, 7), eot=15))
        ['fixed-0', 'fixed-7', 'fresh', 'fresh-eot']
    """
    _check(base, seeds)
    options = {"stop": "never", **base.attack_options}

    def attacked(index: int, **more: Any) -> Robustness:
        own = {**options, "seed": index, **more.pop("options", {})}
        return replace(base, attack=base.attack_name, attack_options=own, source_seed=None, **more)

    runs = {
        fixed_name(seed): attacked(k, randomness="fixed", draws=None, seed=seed)
        for k, seed in enumerate(seeds)
    }
    fresh: dict[str, Any] = {"randomness": "fresh", "draws": draws, "seed": seeds[0]}
    runs[FRESH] = attacked(len(seeds), **fresh)
    if eot is not None:
        runs[EOT] = attacked(len(seeds) + 1, **fresh, options={"eot": eot})
    return runs


def _check(base: Robustness, seeds: Sequence[int]) -> None:
    if len(set(seeds)) != len(seeds):
        raise BadInput(f"seeds {list(seeds)}", "are not different ones", "use 0,1,2")
    if len(seeds) < 2:
        raise BadInput(f"seeds {list(seeds)}", "leave nothing to transfer to", "give two or more")
    kind = settings_type(find(base.attack_name))
    if not issubclass(kind, GradientSettings):
        raise BadInput(f"attack {base.attack_name}", "follows no gradient", "use pgd, apgd or bpda")
    if kind.eot != 1:
        raise BadInput(
            f"attack {base.attack_name}",
            "averages over randomness itself, and cannot hold it fixed",
            f"use {base.attack_name.strip().lower().replace('_', '-').removesuffix('-eot')}",
        )
    for name in _OWN:
        if name in base.attack_options:
            raise BadInput(
                f"attack option {name}={base.attack_options[name]}",
                "is set by the comparison itself",
                "leave it out",
            )
