"""Files of other formats become a Lance dataset."""

from lance_lightning.importing.detect import FORMATS
from lance_lightning.importing.table import BYTES_PER_FILE, ROWS_PER_FILE, import_table

__all__ = ["BYTES_PER_FILE", "FORMATS", "ROWS_PER_FILE", "import_table"]
