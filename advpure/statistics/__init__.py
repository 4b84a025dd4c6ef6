"""Rates, intervals, ratios, survival curves: statistics over images."""
