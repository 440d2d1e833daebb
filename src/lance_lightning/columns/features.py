"""What a Hugging Face dataset says of its columns, which Lance keeps with the schema.

``lance.write_dataset(dataset, uri)`` stores the columns as Arrow has them, and the
features of `datasets` (images, sound, classes, arrays) as text beside them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lance_lightning.checks import quote_names
from lance_lightning.errors import ConfigError

_KEY = b"huggingface"
_FILES = ("Audio", "Video", "Pdf", "Nifti")  # encoded, and no images
_ARRAYS = ("Array2D", "Array3D", "Array4D", "Array5D")


def features_of(schema: Any) -> dict[str, Any]:
    """Return the features of a table's columns; none where it came from elsewhere."""
    text = (schema.metadata or {}).get(_KEY)
    try:
        found = json.loads(text)["info"]["features"] if text else {}
    except (ValueError, KeyError, TypeError):
        return {}  # somebody else's metadata
    return found if isinstance(found, dict) else {}


def features_of_columns(schema: Any, columns: Any) -> dict[str, Any]:
    """Return the features of the columns that are read, by their new names.

    Args:
        schema: The table's.
        columns: Names, or a mapping from new name to a name or SQL; None is all. What
            is computed has none.
    """
    there = features_of(schema)
    if not there:
        return {}
    if columns is None:
        columns = schema.names
    pairs = columns if isinstance(columns, Mapping) else {n: n for n in columns}
    found = {new: feature_at(there, asked) for new, asked in pairs.items() if asked}
    return {new: feature for new, feature in found.items() if feature is not None}


def feature_at(features: Any, path: str) -> Any:
    """Return the feature of a column, or of a field by its dotted path, or None."""
    if not isinstance(features, Mapping) or "_type" in features:
        return None
    if path in features:
        return features[path]
    first, _, rest = path.partition(".")
    return feature_at(features.get(first), rest) if rest else None


def is_other_file(feature: Any) -> bool:
    """Tell whether a column holds encoded files that are no images."""
    feature = _inside(feature)
    return isinstance(feature, Mapping) and feature.get("_type") in _FILES


def array_shape(feature: Any) -> tuple[int | None, ...] | None:
    """Return the shape of each row of an array; its first length may be None."""
    if not isinstance(feature, Mapping) or feature.get("_type") not in _ARRAYS:
        return None
    return tuple(feature["shape"])


def class_names(schema: Any, column: str) -> list[str]:
    """Return the names of a column's classes, the first for 0.

    Raises:
        ConfigError: The table does not say the names of this column's classes.
    """
    features = features_of(schema)
    found = _inside(feature_at(features, column))
    if isinstance(found, Mapping) and found.get("_type") == "ClassLabel":
        return list(found["names"])
    named = list(_with_class_names(features))
    raise ConfigError(
        f"the table does not say what the classes of column {column!r} are called; "
        f"columns with class names: {quote_names(named)}. They are what a ClassLabel "
        "of "
        "Hugging Face's datasets says, and part of a table that was made of one"
    )


def _with_class_names(features: Any, parent: str = "") -> Iterator[str]:
    """Yield the columns, and the fields of structs, that have class names."""
    for name, feature in features.items():
        found = _inside(feature)
        if not isinstance(found, Mapping):
            continue
        if found.get("_type") == "ClassLabel":
            yield parent + name
        elif "_type" not in found:
            yield from _with_class_names(found, f"{parent}{name}.")


def _inside(feature: Any) -> Any:
    """Return the feature of what lists hold, however deep."""
    while True:
        if isinstance(feature, Sequence) and not isinstance(feature, str) and feature:
            feature = feature[0]  # how datasets wrote a list before version 4
        elif isinstance(feature, Mapping) and isinstance(feature.get("_type"), str):
            if "feature" not in feature:
                return feature
            feature = feature["feature"]
        else:
            return feature
