"""Installed ROMs, from which tests make files."""

from pathlib import Path

from stable_retro import data as retro_data


def rom_of(game: str) -> bytes:
    """The ROM of an installed game."""
    return Path(retro_data.get_romfile_path(game, retro_data.Integrations.ALL)).read_bytes()
