"""Certification: randomized smoothing of purifiers, and what certificates say."""

import inspect

from advpure.analysis.certification.accuracy import (
    AtRadius,
    CertifiedImages,
    abstention,
    accuracy_curve,
    accuracy_lower_bound,
    average_certified_radius,
    bernstein_lower_bound,
    best_over,
    certified_accuracy,
    certified_at,
    compare,
)
from advpure.analysis.certification.anytime import AnytimeRule, follow, lower_bounds
from advpure.analysis.certification.cascade import CascadeCertificate, certify_cascade
from advpure.analysis.certification.composition import ComposedCertificate, certify_composition
from advpure.analysis.certification.emulation import emulate
from advpure.analysis.certification.jointly import certify_jointly
from advpure.analysis.certification.logs import read_log, write_log
from advpure.analysis.certification.prior import Prior, learn_prior
from advpure.analysis.certification.radius import (
    ABSTAIN,
    largest_radius,
    radius_of,
    round_down,
    samples_needed,
)
from advpure.analysis.certification.sources import Sources, read_sources
from advpure.analysis.certification.study import Certification, CertificationReport
from advpure.analysis.certification.two_stage import Certificate, Prediction, certify, predict
from advpure.base.arguments import checked

__all__ = [
    "ABSTAIN",
    "AnytimeRule",
    "AtRadius",
    "CascadeCertificate",
    "Certificate",
    "Certification",
    "CertificationReport",
    "CertifiedImages",
    "ComposedCertificate",
    "Prediction",
    "Prior",
    "Sources",
    "abstention",
    "accuracy_curve",
    "accuracy_lower_bound",
    "average_certified_radius",
    "bernstein_lower_bound",
    "best_over",
    "certified_accuracy",
    "certified_at",
    "certify",
    "certify_cascade",
    "certify_composition",
    "certify_jointly",
    "compare",
    "emulate",
    "follow",
    "largest_radius",
    "learn_prior",
    "lower_bounds",
    "predict",
    "radius_of",
    "read_log",
    "read_sources",
    "round_down",
    "samples_needed",
    "write_log",
]

for _name in __all__:
    if inspect.isfunction(globals()[_name]):
        globals()[_name] = checked(globals()[_name])
