"""What every step of a chain compresses, and its singular values."""
