"""Measurements that explain why a purifier is or is not robust."""

if __name__ != "advpure.analysis":
    raise ImportError(f"this package is advpure.analysis, not {__name__}")

import inspect

from advpure.analysis.closed_forms.gaussian_field import (
    DivergingStep,
    GaussianField,
    gaussian_field_compression,
)
from advpure.analysis.closed_forms.gaussian_field_paths import (
    FieldRates,
    simulate_paths,
    simulate_rates,
)
from advpure.analysis.closed_forms.gaussian_field_table import (
    FieldSettings,
    FieldTable,
    field_table,
)
from advpure.analysis.compression.infinitesimal import (
    InfinitesimalResult,
    ProbeRow,
    infinitesimal_compression_rate,
    push_forward,
)
from advpure.analysis.compression.noising import (
    forward_compression_rate,
    noised_distance,
    resized_noise_factor,
    uniform_noise_norm,
)
from advpure.analysis.compression.rates import (
    CompressionSettings,
    compression_evaluations,
    compression_rate,
    compression_rows,
    describe_compression,
    expected_compression_rate,
)
from advpure.analysis.compression.result import (
    COMPRESSION_SCHEMA,
    CompressionKey,
    CompressionResult,
    CompressionRow,
    CompressionSummary,
)
from advpure.analysis.fixed_randomness.correlation import perturbation_correlations
from advpure.analysis.gradient_noise.moments import enough_draws, expected_cosine
from advpure.analysis.gradient_noise.noise import gradient_noise
from advpure.analysis.gradient_noise.result import GradientResult
from advpure.analysis.metrics.frechet import frechet_distance, frechet_estimate
from advpure.analysis.metrics.inception_score import inception_score
from advpure.analysis.metrics.measure import METRICS, Measurements, measure
from advpure.analysis.metrics.moments import Moments
from advpure.analysis.metrics.precision_recall import precision_recall
from advpure.analysis.metrics.ssim import ssim
from advpure.analysis.perturbations import Distribution, directions
from advpure.analysis.prediction.files import predict_from
from advpure.analysis.prediction.predict import PredictionInput, predict_robustness
from advpure.analysis.prediction.report import PredictionReport
from advpure.analysis.prediction.sigmoid import Sigmoid, SigmoidFit, fit_sigmoid, leave_one_out
from advpure.analysis.steps.divergence import Divergence, estimate_divergence
from advpure.analysis.steps.manifold import ManifoldSettings, local_spans
from advpure.analysis.steps.rates import step_compression
from advpure.analysis.steps.result import StepsResult
from advpure.analysis.steps.settings import StepSettings
from advpure.analysis.steps.singular import Spectrum, leading_singular_values
from advpure.analysis.variability.result import SNR_SCHEMA, SnrResult, SnrRow
from advpure.analysis.variability.settings import SnrSettings
from advpure.analysis.variability.tables import describe_snr, signal_to_noise, snr_tables
from advpure.analysis.variability.two_way import Table, TwoWay, table_statistics
from advpure.analysis.variability.variance import (
    Components,
    SumsOfSquares,
    expected_plain,
    plain_components,
    unbiased_components,
)
from advpure.base.arguments import checked

__all__ = [
    "COMPRESSION_SCHEMA",
    "METRICS",
    "SNR_SCHEMA",
    "Components",
    "CompressionKey",
    "CompressionResult",
    "CompressionRow",
    "CompressionSettings",
    "CompressionSummary",
    "Distribution",
    "Divergence",
    "DivergingStep",
    "FieldRates",
    "FieldSettings",
    "FieldTable",
    "GaussianField",
    "GradientResult",
    "InfinitesimalResult",
    "ManifoldSettings",
    "Measurements",
    "Moments",
    "PredictionInput",
    "PredictionReport",
    "ProbeRow",
    "Sigmoid",
    "SigmoidFit",
    "SnrResult",
    "SnrRow",
    "SnrSettings",
    "Spectrum",
    "StepSettings",
    "StepsResult",
    "SumsOfSquares",
    "Table",
    "TwoWay",
    "compression_evaluations",
    "compression_rate",
    "compression_rows",
    "describe_compression",
    "describe_snr",
    "directions",
    "enough_draws",
    "estimate_divergence",
    "expected_compression_rate",
    "expected_cosine",
    "expected_plain",
    "field_table",
    "fit_sigmoid",
    "forward_compression_rate",
    "frechet_distance",
    "frechet_estimate",
    "gaussian_field_compression",
    "gradient_noise",
    "inception_score",
    "infinitesimal_compression_rate",
    "leading_singular_values",
    "leave_one_out",
    "local_spans",
    "measure",
    "noised_distance",
    "perturbation_correlations",
    "plain_components",
    "precision_recall",
    "predict_from",
    "predict_robustness",
    "push_forward",
    "resized_noise_factor",
    "signal_to_noise",
    "simulate_paths",
    "simulate_rates",
    "snr_tables",
    "ssim",
    "step_compression",
    "table_statistics",
    "unbiased_components",
    "uniform_noise_norm",
]

for _name in __all__:
    if inspect.isfunction(globals()[_name]):
        globals()[_name] = checked(globals()[_name])
