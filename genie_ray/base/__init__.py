"""What every package uses: settings, errors, files, progress, the Ray session, seeds, logs, figures."""
