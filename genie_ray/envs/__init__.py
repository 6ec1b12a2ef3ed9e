"""Games as gymnasium environments."""
