"""What every room uses: settings, errors, files, progress, the Ray session, seeds, logs, figures."""
