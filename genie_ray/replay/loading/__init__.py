"""From a replay dataset to batches: windows, their order, mixtures of datasets, reading ahead."""
