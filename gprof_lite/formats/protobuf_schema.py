"""Protobuf message classes made at run time from a table of fields.

The wire needs only field numbers, types and whether a field repeats; that is what the table says. Generated code would
be bound to one protobuf version and belongs to whoever wrote the ``.proto``. Each schema lives in a descriptor pool of
its own, so that it meets no other library's messages of the same name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_Proto = descriptor_pb2.FieldDescriptorProto
_SCALARS: Final = {
    "int64": _Proto.TYPE_INT64,
    "uint64": _Proto.TYPE_UINT64,
    "bool": _Proto.TYPE_BOOL,
    "string": _Proto.TYPE_STRING,
    "bytes": _Proto.TYPE_BYTES,
}


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a message. ``kind`` is a scalar type or the name of a message of the same schema."""

    number: int
    name: str
    kind: str
    repeated: bool = False


def build_messages(package: str, messages: Mapping[str, tuple[Field, ...]]) -> dict[str, Any]:
    """Message classes by name, proto3 rules: numbers that repeat are packed, strings are valid UTF-8."""
    file = descriptor_pb2.FileDescriptorProto(name=f"{package}.proto", package=package, syntax="proto3")
    for name, fields in messages.items():
        message = file.message_type.add(name=name)
        for field in fields:
            _add_field(message, field, package)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    # Any: the attributes of these classes exist at run time only.
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{package}.{name}")) for name in messages}


def _add_field(message: descriptor_pb2.DescriptorProto, field: Field, package: str) -> None:
    added = message.field.add(name=field.name, number=field.number)
    added.label = _Proto.LABEL_REPEATED if field.repeated else _Proto.LABEL_OPTIONAL
    if field.kind in _SCALARS:
        added.type = _SCALARS[field.kind]
    else:
        added.type = _Proto.TYPE_MESSAGE
        added.type_name = f".{package}.{field.kind}"
