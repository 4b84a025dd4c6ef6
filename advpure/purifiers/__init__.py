"""The purifiers by name. A new one is one file beside these and one line below."""

from advpure.base.registry import Registry
from advpure.core.recipe import Recipe

PURIFIERS: Registry[type[Recipe]] = Registry(
    "defense", group="advpure.purifiers", adapt="advpure.core.own_recipe:recipe_of"
)

for _name, _target, _about in (
    ("none", "oneshot:Nothing", "no purification, the undefended classifier"),
    ("ddpm", "ddpm:DDPM", "DiffPure: t noising and t ancestral reverse steps"),
    ("reverse", "ddpm:ReverseOnly", "reverse-only: ancestral steps from the image itself"),
    ("ddim", "ddpm:DDIM", "t noising and t deterministic reverse steps"),
    ("vpsde", "vpsde:VPSDE", "DiffPure's reverse SDE by Euler-Maruyama"),
    ("dpm", "dpm:DPM", "DPM-Solver, 20 evaluations"),
    ("onestep-ddpm", "oneshot:OneStepDDPM", "diffusion denoised smoothing, one evaluation"),
    ("onestep-edm", "oneshot:OneStepEDM", "one evaluation of the EDM denoiser"),
    ("calibrated", "oneshot:Calibrated", "the same, fine-tuned through a classifier (re-derived)"),
    ("pf-ode", "pf_ode:PFODE", "probability-flow ODE by Heun's method, 35 evaluations"),
    ("cm", "cm:ConsistencyPurification", "consistency purification, one evaluation"),
    ("cm-ft", "cm:TunedConsistencyPurification", "the same, fine-tuned for purification"),
    ("rrcm", "rrcm:RepresentationConsistency", "no denoiser: a classifier that takes the noise"),
    ("densepure", "densepure:DensePure", "reverse passes with a majority vote"),
):
    PURIFIERS.register(_name, f"advpure.purifiers.{_target}", about=_about)
