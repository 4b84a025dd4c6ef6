"""Transfer between randomness configurations: craft under one, report under another.

Source: [Wei2025], table S4.
"""

import dataclasses
from typing import Any, Literal, Protocol

from torch import Tensor

from advpure.attacks.oracle import Model, Oracle, check_batch
from advpure.attacks.outcome import AttackResult
from advpure.attacks.registry import find, settings_type
from advpure.base.errors import BadInput
from advpure.base.validation import instance
from advpure.core.given import takes_pairs
from advpure.core.randomness import Ids, RandomnessConfig, check_xi


class Attack(Protocol):
    """What `pgd` and its siblings are."""

    def __call__(
        self, model: Model, images: Tensor, labels: Tensor, *args: Any, **kwargs: Any
    ) -> AttackResult:
        """Attack images."""
        ...


def refuse_own_source(source_xi: RandomnessConfig, own: RandomnessConfig | None) -> None:
    """Refuse a transfer from the configuration that decides.

    Raises:
        BadInput: where the two are equal.
    """
    if source_xi == own:
        raise BadInput(
            f"transfer from seed {source_xi.seed}",
            "is from the seed that decides, so nothing is transferred",
            "choose another seed, or attack without transfer",
        )


def _can_go_on(attack: Attack) -> bool:
    """Return whether an attack can be told not to stop at success; a user's own is asked."""
    try:
        return "stop" in {each.name for each in dataclasses.fields(settings_type(attack))}
    except BadInput:
        return True


@takes_pairs
def transfer(
    attack: str | Attack,
    model: Model,
    images: Tensor,
    labels: Tensor,
    settings: Any = None,
    *,
    source_xi: RandomnessConfig,
    ids: Ids | None = None,
    stop: Literal["success", "never"] | None = "never",
    **overrides: Any,
) -> AttackResult:
    """Craft adversarial images under one randomness configuration, test them under another.

    Args:
        attack: Name of a registered attack, or the function itself.
        model: A `Defense` whose own xi is the one to report under.
        images: [B, C, H, W], floating point in [0, 1].
        labels: Classes [B].
        settings: Settings of the attack.
        source_xi: The configuration that the attack sees.
        ids: Data-set indices [B].
        stop: When crafting stops. An attack that stops as soon as the source is fooled barely
            crosses its border and transfers badly, hence "never". None leaves it to the settings.
        overrides: Single settings of the attack.

    Returns:
        The result of the attack with `success` and `loss` under the model's own randomness, and one
        more forward pass per sample.

    Raises:
        BadInput: for a model without `at`, a source that is the model's own randomness, or as the
            attack does.
    """
    if not hasattr(model, "at"):
        raise BadInput("transfer", "needs a model whose randomness can be set", "pass a Defense")
    run: Attack = attack if callable(attack) else find(attack)
    check_xi(source_xi)
    refuse_own_source(source_xi, getattr(model, "xi", None))
    if stop is not None:
        if not _can_go_on(run):
            name = attack if isinstance(attack, str) else getattr(attack, "__name__", "this attack")
            rule = "stops at the border that it has just crossed, where a transfer fails"
            raise BadInput(f"transfer of {name}", rule, "use pgd or apgd")
        overrides["stop"] = stop
    batch = check_batch(model, images, labels, ids)
    source = model.at(xi=source_xi)
    crafted = run(source, images, labels, settings, ids=batch.ids, **overrides)
    instance(crafted, AttackResult, "what the attack returned,", "return an AttackResult")
    test = dataclasses.replace(crafted.settings, randomness="fixed")
    verdict = Oracle(model, test).judge(crafted.images, batch.labels, batch.ids, step=0)
    return dataclasses.replace(
        crafted,
        success=verdict.success.cpu(),
        loss=verdict.loss.cpu(),
        forwards=crafted.forwards + 1,
    )
