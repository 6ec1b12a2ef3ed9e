"""RLlib agents (new API stack). They import neither `genie_ray` nor `world_model`: what they need is passed in."""
