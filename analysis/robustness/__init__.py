"""How robust is a defense? The evaluation protocol and its run."""
