"""Published values of tables and figures, one file a paper; data only."""
