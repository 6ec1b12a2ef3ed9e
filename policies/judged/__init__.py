"""Agents whose rewards come from a judge: what AutoExplore and the PPO explorer share."""
