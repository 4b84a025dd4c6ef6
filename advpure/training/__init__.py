"""Train the networks that advpure ships, and your own, from small TOML recipes."""

from advpure.training.recipe import Recipe, list_recipes, load_recipe
from advpure.training.run import TrainResult, train

__all__ = ["Recipe", "TrainResult", "list_recipes", "load_recipe", "train"]
