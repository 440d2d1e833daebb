"""A table pinned at a version, and lists of its rows."""

from lance_lightning.tables.blobs import BlobDataset, with_blobs
from lance_lightning.tables.identity import (
    Identity,
    content_digest,
    identity_of,
    schema_digest,
)
from lance_lightning.tables.opening import (
    absolute,
    check_out,
    local_path,
    open_at,
    open_newest,
    resolve_tag,
)
from lance_lightning.tables.plan import Plan, range_plan, save_offsets
from lance_lightning.tables.projection import check_filter_text
from lance_lightning.tables.remote import SCHEME, RemotePlace
from lance_lightning.tables.secrets import (
    explain_errors,
    from_environment,
    strip_secrets,
    without_environment,
)
from lance_lightning.tables.snapshot import Snapshot
from lance_lightning.tables.storage import read_table, scan_table

__all__ = [
    "SCHEME",
    "BlobDataset",
    "Identity",
    "Plan",
    "RemotePlace",
    "Snapshot",
    "absolute",
    "check_filter_text",
    "check_out",
    "content_digest",
    "explain_errors",
    "from_environment",
    "identity_of",
    "local_path",
    "open_at",
    "open_newest",
    "range_plan",
    "read_table",
    "resolve_tag",
    "save_offsets",
    "scan_table",
    "schema_digest",
    "strip_secrets",
    "with_blobs",
    "without_environment",
]
