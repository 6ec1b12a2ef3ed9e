"""The commands of `genie-ray`, by subject; cli.py assembles them. Thin: parse, call, print."""
