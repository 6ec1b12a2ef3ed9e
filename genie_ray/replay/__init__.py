"""Replay datasets: Parquet files, one row per step."""
