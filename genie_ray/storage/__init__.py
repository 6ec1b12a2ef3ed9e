"""Where artefacts are: paths on a disk or an object store, and reading and writing them there as a whole."""
