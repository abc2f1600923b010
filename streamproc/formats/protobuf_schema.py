"""Protobuf messages' descriptors, out of a descriptor set or as a schema registry gives them."""

from __future__ import annotations

import base64
import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from google.protobuf.descriptor import Descriptor
from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorProto, FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError

_WELL_KNOWN = ("any", "api", "descriptor", "duration", "empty", "field_mask", "source_context", "struct", "timestamp", "type", "wrappers")


def described(file: str, message: str) -> Descriptor:
    """The message of a file that `protoc --include_imports --descriptor_set_out` wrote. ValueError says what is wrong."""
    try:
        found = FileDescriptorSet.FromString(Path(file).read_bytes())
    except OSError as error:
        raise ValueError(f"descriptor_set {file} cannot be read: {error.strerror or error}") from None
    except DecodeError:
        raise ValueError(f"descriptor_set {file} is not one; make it with protoc --include_imports --descriptor_set_out={file}") from None
    pool = _pool({one.name: one for one in found.file})
    try:
        return pool.FindMessageTypeByName(message)
    except KeyError:
        own = [one for one in found.file if not one.name.startswith("google/protobuf/")]
        known = ", ".join(sorted(f"{one.package}.{m.name}".lstrip(".") for one in own for m in one.message_type)[:10])
        raise ValueError(f"descriptor_set {file} has no message {message!r}; it has {known or 'none'}") from None


def registered(text: str, references: Mapping[str, str], place: Sequence[int]) -> Descriptor:
    """The message at `place` of a registered file. ValueError says what is wrong."""
    files = {name: _file(other, name) for name, other in references.items()}
    root = files["_root.proto"] = _file(text, "_root.proto")
    pool = _pool(files)
    inner: Sequence[DescriptorProto] = root.message_type
    name = root.package
    for index in place:
        if index >= len(inner):
            raise ValueError(f"the schema has no message at {list(place)}")
        name = f"{name}.{inner[index].name}".lstrip(".")
        inner = inner[index].nested_type
    return pool.FindMessageTypeByName(name)


def _file(text: str, name: str) -> FileDescriptorProto:
    try:
        found = FileDescriptorProto.FromString(base64.b64decode(text, validate=True))
    except (ValueError, DecodeError):
        raise ValueError("the registry cannot give Protobuf schemas serialised; use protobuf: {descriptor_set: …, message: …}") from None
    found.name = name
    return found


def _pool(files: Mapping[str, FileDescriptorProto]) -> DescriptorPool:
    """The files, each after those it imports; Google's own where they are not among them."""
    pool = DescriptorPool()
    added: set[str] = set()

    def add(name: str, needed_by: str) -> None:
        if name in added:
            return
        added.add(name)
        found = files.get(name) or _well_known(name)
        if found is None:
            raise ValueError(f"{needed_by} imports {name}, which is not there; protoc takes it in with --include_imports")
        for imported in found.dependency:
            add(imported, name)
        try:
            pool.AddSerializedFile(found.SerializeToString())
        except TypeError as error:
            raise ValueError(f"{name} is not a valid description: {error}") from None

    for name in files:
        add(name, name)
    return pool


def _well_known(name: str) -> FileDescriptorProto | None:
    stem = name.removeprefix("google/protobuf/").removesuffix(".proto")
    if stem not in _WELL_KNOWN:
        return None
    found = FileDescriptorProto()
    importlib.import_module(f"google.protobuf.{stem}_pb2").DESCRIPTOR.CopyToProto(found)
    return found
