"""Run folders: records, their layout, their export, and what a run will cost."""
