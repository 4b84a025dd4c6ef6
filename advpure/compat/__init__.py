"""Bridges to other libraries, each an optional extra and imported only where it is used."""
