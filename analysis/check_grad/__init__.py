"""Prove a purifier's gradients."""
