"""Documents that describe services: whether they are valid by OpenRPC's own meta-schema, and hold together."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped] # its types are a package of their own, which is not needed
import referencing
from referencing.jsonschema import DRAFT7

_DATA = Path(__file__).parent.parent / "data"


def _read(name: str) -> Any:
    return json.loads((_DATA / name).read_text(encoding="utf-8"))


@functools.cache
def _validator() -> jsonschema.Draft7Validator:
    schemas = DRAFT7.create_resource(_read("json-schema.json"))
    # The one refers to the other with a slash at the end, and without.
    registry: referencing.Registry[Any] = referencing.Registry().with_resources(
        [("https://meta.json-schema.tools", schemas), ("https://meta.json-schema.tools/", schemas)]
    )
    return jsonschema.Draft7Validator(_read("openrpc-1.3.json"), registry=registry)


def check_document(document: Any) -> None:
    """Check that a document is valid OpenRPC, that each of its schemas is one, and that it refers to what is there.

    Raises:
        AssertionError: it is not; the message says where.
    """
    assert json.loads(json.dumps(document, allow_nan=False)) == document, "it is no JSON"
    errors = [f"{error.json_path}: {error.message[:300]}" for error in _validator().iter_errors(document)]
    assert not errors, "\n".join(errors)
    components = document["components"]["schemas"]
    interfaces = document["x-seqrpc"]["interfaces"]
    used: set[str] = set()
    for part in parts_of(document):
        reference = part.get("$ref")
        if isinstance(reference, str):
            name = reference.removeprefix("#/components/schemas/")
            assert name in components, f"{reference} leads nowhere"
            used.add(name)
            assert part == {"$ref": reference}, "JSON Schema ignores what stands beside a reference"
        ours = part.get("x-seqrpc")
        if isinstance(ours, dict) and ours.get("type") == "object":
            assert ours["interface"] in interfaces
    assert used == set(components), "components that nothing refers to"
    for schema in schemas_of(document):
        jsonschema.Draft7Validator.check_schema(schema)


def parts_of(document: Any) -> Iterator[dict[str, Any]]:
    """Yield all maps in a document."""
    todo = [document]
    while todo:
        part = todo.pop()
        if isinstance(part, dict):
            yield part
            todo += part.values()
        elif isinstance(part, list):
            todo += part
        elif isinstance(part, float):
            assert math.isfinite(part)


def schemas_of(document: Any) -> Iterator[Any]:
    """Yield the schemas of a document: of parameters, results and components, those of interfaces too."""
    yield from document["components"]["schemas"].values()
    methods = [*document["methods"]]
    for interface in document["x-seqrpc"]["interfaces"].values():
        methods += interface["methods"]
    for method in methods:
        yield from (parameter["schema"] for parameter in method["params"])
        if "result" in method:
            yield method["result"]["schema"]
