"""Defenses: a purifier and a classifier, and all that their answers depend on."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from advpure.base.defaults import DEFAULT_DATASET
from advpure.base.errors import BadInput
from advpure.base.imports import code_of
from advpure.base.validation import instance
from advpure.core.chain import Chain
from advpure.core.defense import Defense, Policy
from advpure.core.gradients import GradientMode
from advpure.core.outputs import Outputs
from advpure.core.own import OwnModel
from advpure.core.precision import Precision
from advpure.core.purifier import Purifier
from advpure.core.randomness import RandomnessConfig
from advpure.core.steady import is_trusted
from advpure.data import Source
from advpure.loading.classifiers import answering, load_judge, lowered, with_outputs
from advpure.loading.levelled import judge_of_level
from advpure.loading.purifiers import assemble_purifier
from advpure.loading.weights import identity_of, tile_for
from advpure.own_classifiers import own_classifier
from advpure.purifiers import PURIFIERS


def load_defense(
    name: Any,
    dataset: Source = DEFAULT_DATASET,
    *,
    t: int | None = None,
    sigma: float | None = None,
    xi: RandomnessConfig | None = None,
    gradient: GradientMode | None = None,
    policy: Policy | str | None = None,
    tile: int | None = None,
    weights: str | Path | None = None,
    denoiser: Any = None,
    classifier: nn.Module | Callable[..., Any] | str | Path | None = None,
    outputs: Outputs = "logits",
    normalize: str | None = None,
    classifier_options: Mapping[str, Any] | None = None,
    boost: Any = None,
    boost_options: Mapping[str, Any] | None = None,
    precision: Precision = "float32",
    **options: Any,
) -> Defense:
    """Load a defense: purifier and classifier, a module from images in [0, 1] to logits.

    Args:
        name: A purifier as in `load_purifier`, or a model that is a whole defense, from images in
            [0, 1] to logits; then without a classifier.
        dataset: The data set whose networks and tile it uses.
        t: Strength in time steps.
        sigma: Strength as noise level in [0, 1] units, instead of t.
        xi: Randomness configuration.
        gradient: Gradient mode; exact by default.
        policy: ``single``, ``eot:K``, ``majority:K`` or a `Policy`; by default single, and
            DensePure's own vote.
        tile: Compute tile; the data set's by default, 0 for none.
        weights: Weights of the denoiser: a file, a shipped name or an official ``NAME:FILE``.
        denoiser: A denoiser instead, an object or code of yours.
        classifier: A module or function from [0, 1] images to logits, or as in `load_classifier`.
        outputs: What the classifier answers with: ``logits``, ``probabilities`` or ``labels``; see
            `advpure.core.outputs`, also for the cost.
        normalize: MEAN/STD of the images that the classifier takes, comma lists.
        classifier_options: Arguments of a classifier that is code of yours.
        boost: A booster between purifier and classifier, see `load_booster`; None for none.
        boost_options: Fields of `advpure.boosting.settings.BoostSettings`.
        precision: What purifier and classifier are computed in: ``float32``, ``bfloat16`` or
            ``float16``; see `advpure.core.precision`.
        options: The purifier's own options.

    Raises:
        BadInput: for names, options or files that cannot be used.

    Example:
        >>> from advpure import load_images
        >>> defense = load_defense("cm", "digits", xi=RandomnessConfig(0))
        >>> images, labels, ids = load_images("digits", n=4)
        >>> defense.bind(ids)(images).shape
        torch.Size([4, 10])
    """
    purifier = assemble_purifier(
        name,
        dataset,
        t=t,
        sigma=sigma,
        gradient=gradient,
        weights=weights,
        denoiser=denoiser,
        tile=0,
        boost=boost,
        boost_options=boost_options,
        precision=precision,
        **options,
    )
    judge: nn.Module
    is_whole = purifier.model is not None and purifier.model.answers == "classes"
    if isinstance(name, Defense):
        if classifier is not None or normalize is not None:
            fix = "leave --classifier and --normalize out"
            raise BadInput(f"defense {name.purifier.name}", "has its classifier", fix)
        known = name.purifier.settings.get("classifier")
        judge, identity = name.classifier, known or identity_of(name.classifier)
        policy = name.policy if policy is None else policy
    elif is_whole:
        assert purifier.model is not None
        if classifier is not None or normalize is not None:
            fix = "leave --classifier and --normalize out"
            raise BadInput(purifier.model.name, "is a whole defense, with its classifier", fix)
        judge, identity = purifier.model, {"name": purifier.name, "is": "the whole defense"}
        purifier = Purifier(purifier.name, Chain(), settings=purifier.settings, gradient=gradient)
    elif PURIFIERS.get(name).levelled:
        said = None if outputs == "logits" else outputs
        idle = {"outputs": said, "normalize": normalize, "classifier_options": classifier_options}
        judge, identity = judge_of_level(purifier.recipe, dataset, classifier, idle)
    elif classifier is None or isinstance(classifier, str | Path):
        judge, identity = load_judge(dataset, classifier, outputs, normalize, classifier_options)
    elif isinstance(classifier, Purifier):
        fix = "give a classifier, such as load_classifier(...)"
        raise BadInput(f"classifier {classifier.name}", "is a purifier", fix)
    elif isinstance(classifier, nn.Module) and is_trusted(classifier) and normalize is None:
        judge = answering(classifier, dataset, outputs)
        identity = with_outputs(identity_of(classifier), outputs)
    else:
        judge, identity = own_classifier(
            classifier, code_of(classifier), dataset, outputs, normalize, is_strict=False
        )
        identity = with_outputs(identity, outputs)
    if precision != "float32" and not is_whole:
        judge = lowered(judge, precision, outputs, dataset)
    if isinstance(policy, str):
        policy = Policy.parse(policy)
    votes = PURIFIERS.get(name).votes
    if policy is not None:
        instance(policy, Policy, "policy", "write eot:10, or pass a Policy")
        is_random = purifier.is_random or (isinstance(judge, OwnModel) and judge.is_random)
        if policy.draws > 1 and not is_random:
            raise BadInput(
                f"policy {policy.kind}:{policy.draws}",
                f"means nothing to {purifier.name}, which draws no noise",
                "leave it out",
            )
    if policy is None and votes > 1:
        policy = Policy("majority", votes, reverse_only=True)
    purifier.settings["classifier"] = identity
    tile = tile_for(dataset, tile)
    defense = Defense(purifier, judge, xi=xi, policy=policy, tile=tile)
    defense.training = purifier.training = False  # and not .eval(), which would switch the parts
    return defense


def describe(defense: Defense) -> dict[str, Any]:
    """Return everything that a defense's answers depend on, as JSON values."""
    return {
        **defense.purifier.settings,
        "gradient": defense.purifier.gradient,
        "policy": dataclasses.asdict(defense.policy),
        "tile": defense.tile,
        "evaluations": defense.evaluations,
    }
