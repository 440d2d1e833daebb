"""A progress bar while splits are worked out."""

from __future__ import annotations

from tqdm import tqdm

PATIENCE = 5.0  # seconds of building before a bar says so; lancedb needs one or two


class Progress:
    """A bar on stderr, once the work has taken longer than a user expects."""

    def __init__(self, num_rows: int, wanted: bool) -> None:
        self._bar = tqdm(
            desc="lance_lightning: building the splits, once",
            total=num_rows,
            unit=" rows",
            delay=PATIENCE,
            miniters=0,  # its clock continues where no row is counted
            disable=not wanted,
            leave=False,
        )

    def tick(self, rows: int = 0) -> None:
        """Show that it continues, by that many rows."""
        self._bar.update(rows)

    def close(self) -> None:
        """Take the bar away."""
        self._bar.close()
