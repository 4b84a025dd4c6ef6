"""Robust accuracy predicted from compression and survival."""
