"""`python -m genie_ray`: the command line, for where the `genie-ray` script is not on the path."""

from genie_ray.cli import main

main()
