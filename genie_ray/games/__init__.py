"""Which games there are: catalog and labels, ROMs, action sets."""
