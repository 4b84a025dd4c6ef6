"""Recipes: one TOML file each, read by `advpure.training.load_recipe`."""
