"""What is wrong with an evaluation: guidelines as checks, each with a number behind its verdict."""
