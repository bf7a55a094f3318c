"""The messages of the two gRPC peers, described at run time, so that no generated code is in the tree.

What comes out is what ``protoc`` would have generated from::

    message Terms { int64 a = 1; int64 b = 2; }
    message Number { int64 value = 1; }
    message Blob { bytes data = 1; }
    message Empty {}
    message Record { int64 id = 1; string name = 2; ... }  // the fields of benchmarks.peers.base.Record
"""

from __future__ import annotations

import types
from typing import Any, get_args, get_origin, get_type_hints

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from benchmarks.peers.base import Record

SERVICE = "benchmarks.Machine"

Field = descriptor_pb2.FieldDescriptorProto

SCALARS = {
    int: Field.TYPE_INT64,
    float: Field.TYPE_DOUBLE,
    bool: Field.TYPE_BOOL,
    str: Field.TYPE_STRING,
    bytes: Field.TYPE_BYTES,
}


def _add_field(message: Any, name: str, hint: Any) -> None:
    """Add to ``message`` the field that a ``.proto`` file would have for this annotation."""
    field = message.field.add(name=name, number=len(message.field) + 1, label=Field.LABEL_OPTIONAL)
    if get_origin(hint) is list:
        field.label = Field.LABEL_REPEATED
        (hint,) = get_args(hint)
    elif get_origin(hint) is dict:  # a map is a repeated message of keys and values
        entry = message.nested_type.add(name=f"{name.capitalize()}Entry", options={"map_entry": True})
        for part, of in zip(("key", "value"), get_args(hint), strict=True):
            _add_field(entry, part, of)
        field.label, field.type = Field.LABEL_REPEATED, Field.TYPE_MESSAGE
        field.type_name = f".benchmarks.{message.name}.{entry.name}"
        return
    elif isinstance(hint, types.UnionType):  # what may be None is proto3's "optional": a oneof of its own
        hint = get_args(hint)[0]
        field.proto3_optional, field.oneof_index = True, len(message.oneof_decl)
        message.oneof_decl.add(name=f"_{name}")
    field.type = SCALARS[hint]


def _classes(**messages: dict[str, Any]) -> dict[str, Any]:
    """Return a class for each message, described as names of fields with annotations."""
    file = descriptor_pb2.FileDescriptorProto(name="benchmarks.proto", package="benchmarks", syntax="proto3")
    for message, fields in messages.items():
        description = file.message_type.add(name=message)
        for name, hint in fields.items():
            _add_field(description, name, hint)
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return {
        message: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"benchmarks.{message}"))
        for message in messages
    }


_made = _classes(
    Terms={"a": int, "b": int},
    Number={"value": int},
    Blob={"data": bytes},
    Empty={},
    Record=get_type_hints(Record),
)
Terms: Any = _made["Terms"]
Number: Any = _made["Number"]
Blob: Any = _made["Blob"]
Empty: Any = _made["Empty"]
RecordMessage: Any = _made["Record"]
