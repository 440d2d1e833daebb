"""Lightning callbacks of the data module."""
