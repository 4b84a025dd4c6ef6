"""What is said of finished runs: compared, computed again, and told on one page."""
