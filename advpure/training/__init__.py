"""Train the networks that advpure ships, and your own, from small TOML recipes."""

from advpure.training.recipe import Recipe, load_recipe, recipes
from advpure.training.run import TrainResult, train

__all__ = ["Recipe", "TrainResult", "load_recipe", "recipes", "train"]
