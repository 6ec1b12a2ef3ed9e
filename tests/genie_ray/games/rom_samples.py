"""ROMs that are here, for tests to make files of."""

from pathlib import Path

from stable_retro import data as retro_data


def rom_of(game: str) -> bytes:
    """The ROM of a game that is installed."""
    return Path(retro_data.get_romfile_path(game, retro_data.Integrations.ALL)).read_bytes()
