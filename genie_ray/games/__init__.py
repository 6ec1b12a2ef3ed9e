"""The games: catalog and labels, ROMs, action sets."""
