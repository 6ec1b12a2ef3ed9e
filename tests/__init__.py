"""A package, not only a folder: a package `tests` that some library installs would come before a folder."""
