"""Baseline policies: what a learned agent has to beat."""
