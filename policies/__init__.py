"""RLlib agents (new API stack). They know neither `genie_ray` nor `world_model`: what they need is handed in."""
