"""The smallest perturbation that fools a classifier, and what survives."""
