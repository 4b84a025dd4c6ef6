"""Measurements that explain why a purifier is or is not robust."""

if __name__ != "advpure.analysis":
    raise ImportError(f"this package is advpure.analysis, not {__name__}")

from advpure.analysis.compression import (
    CompressionSettings,
    compression_evaluations,
    compression_rate,
    compression_rows,
    describe_compression,
    expected_compression_rate,
)
from advpure.analysis.compression_result import (
    COMPRESSION_SCHEMA,
    CompressionKey,
    CompressionResult,
    CompressionRow,
    CompressionSummary,
)
from advpure.analysis.gaussian_field import (
    DivergingStep,
    GaussianField,
    gaussian_field_compression,
)
from advpure.analysis.infinitesimal import (
    InfinitesimalResult,
    ProbeRow,
    infinitesimal_compression_rate,
    push_forward,
)
from advpure.analysis.metrics import METRICS, Measurements, measure
from advpure.analysis.noising import (
    forward_compression_rate,
    noised_distance,
    resized_noise_factor,
    uniform_noise_norm,
)
from advpure.analysis.perturbations import Distribution, directions

__all__ = [
    "COMPRESSION_SCHEMA",
    "METRICS",
    "CompressionKey",
    "CompressionResult",
    "CompressionRow",
    "CompressionSettings",
    "CompressionSummary",
    "Distribution",
    "DivergingStep",
    "GaussianField",
    "InfinitesimalResult",
    "Measurements",
    "ProbeRow",
    "compression_evaluations",
    "compression_rate",
    "compression_rows",
    "describe_compression",
    "directions",
    "expected_compression_rate",
    "forward_compression_rate",
    "gaussian_field_compression",
    "infinitesimal_compression_rate",
    "measure",
    "noised_distance",
    "push_forward",
    "resized_noise_factor",
    "uniform_noise_norm",
]
