"""advpure: how robust is a purifier really?"""

__version__ = "0.1.0"
