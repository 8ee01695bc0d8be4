"""`dicomwatchctl stats`: what was archived; as a table, plots, CSV and a page."""
