"""Explorers under different settings side by side, on Ray Tune."""
