"""Pictures: palette, charts and grids that every figure is drawn with."""
