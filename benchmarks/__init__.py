"""What an update costs, measured; the figures are kept in ``results.json`` and the diff is read."""
