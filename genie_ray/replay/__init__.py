"""Replay datasets: Parquet files with one row per step."""
