"""Registers Lance's own Arrow extension types, with pandas and without.

pylance 14 registers bfloat16, encoded images, their URIs and image tensors where
``lance.arrow`` is imported, and that module needs pandas (its ``PandasBFloat16Array``
exists only beside it). An unregistered column is read as what it is stored as: an
image tensor would lose its shape, and the schema would depend on whether pandas is
installed.
"""

from __future__ import annotations

import json
from typing import Any, ClassVar

import pyarrow as pa


def register_extension_types() -> None:
    """Register them in this process, unless Lance can do so itself."""
    try:
        import lance.arrow  # it registers all of them
    except ImportError:  # no pandas
        # bfloat16 needs none, and is registered by the import that failed or this.
        import lance._arrow.bf16  # noqa: F401

        storage = pa.list_(pa.uint8(), 0)
        for stand_in in (
            _EncodedImage(pa.binary()),
            _ImageURI(pa.string()),
            _ImageTensor(storage, b'{"shape": [0]}'),
        ):
            pa.register_extension_type(stand_in)


class _StandIn(pa.ExtensionType):  # type: ignore[misc]  # pyarrow is untyped
    """Stands in for a type of Lance: its name, its storage and its parameters."""

    name: ClassVar[str]

    def __init__(self, storage: Any, parameters: bytes = b"") -> None:
        self._parameters = parameters
        super().__init__(storage, self.name)

    def __arrow_ext_serialize__(self) -> bytes:
        return self._parameters

    @classmethod
    def __arrow_ext_deserialize__(cls, storage: Any, parameters: bytes) -> _StandIn:
        return cls(storage, parameters)


class _EncodedImage(_StandIn):
    name = "lance.arrow.encoded_image"


class _ImageURI(_StandIn):
    name = "lance.arrow.image_uri"


class _ImageTensor(_StandIn):
    name = "lance.arrow.fixed_shape_image_tensor"

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one image."""
        return tuple(json.loads(self._parameters)["shape"])
