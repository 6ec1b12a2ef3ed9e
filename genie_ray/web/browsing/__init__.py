"""Pages to look at replay datasets: episodes, coverage, and what a world model is unsure of."""
