"""The API's documentation page, drawn on the server from the OpenAPI document: no script, so it fits the strict policy."""

from functools import lru_cache
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from drf_spectacular.generators import SchemaGenerator


class ApiKeyScheme(OpenApiAuthenticationExtension):
    """Tells the OpenAPI document how programs sign in."""

    target_class = "aleph.api.ApiKeyAuthentication"
    name = "apiKey"

    def get_security_definition(self, auto_schema: Any) -> dict[str, str]:
        return {"type": "http", "scheme": "bearer", "description": "A key from Settings, API keys."}


@lru_cache(maxsize=1)
def schema() -> dict[str, Any]:
    """The OpenAPI document. The addresses do not change while a process runs."""
    return SchemaGenerator().get_schema(request=None, public=True)


def api_docs(request: HttpRequest) -> HttpResponse:
    return render(
        request, "docs/api.html", {"groups": groups(schema()), "host": request.build_absolute_uri("/")[:-1]}
    )


def groups(document: dict[str, Any]) -> list[dict[str, Any]]:
    """Operations by tag, each with its parameters, its body and its answers as example-like outlines."""
    by_tag: dict[str, list[dict[str, Any]]] = {}
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            if method not in ("get", "post", "put", "patch", "delete"):
                continue
            by_tag.setdefault(operation.get("tags", ["other"])[0], []).append(
                {
                    "method": method.upper(),
                    "path": path,
                    "text": operation.get("description", ""),
                    "parameters": operation.get("parameters", []),
                    "body": _body(document, operation.get("requestBody", {})),
                    "answers": [
                        {
                            "status": status,
                            "body": _body(document, answer),
                            "text": answer.get("description", ""),
                        }
                        for status, answer in operation.get("responses", {}).items()
                    ],
                }
            )
    return [{"name": tag, "operations": operations} for tag, operations in by_tag.items()]


def _body(document: dict[str, Any], holder: dict[str, Any]) -> list[dict[str, Any]]:
    content = holder.get("content", {}).get("application/json", {})
    return _fields(document, content.get("schema", {}), 0)


def _fields(document: dict[str, Any], shape: dict[str, Any], depth: int) -> list[dict[str, Any]]:
    """The fields of an object, flattened: name, type, what it is for, and how deep it stands."""
    shape = _resolved(document, shape)
    if shape.get("type") == "array":
        return _fields(document, shape.get("items", {}), depth)
    required = shape.get("required", [])
    rows: list[dict[str, Any]] = []
    for name, field in shape.get("properties", {}).items():
        resolved = _resolved(document, field)
        rows.append(
            {
                "name": name,
                "type": _type(document, field),
                "text": field.get("description", resolved.get("description", "")),
                "required": name in required,
                "depth": depth,
            }
        )
        if depth < 3:
            rows += _fields(document, field, depth + 1)
    return rows


def _type(document: dict[str, Any], field: dict[str, Any]) -> str:
    shape = _resolved(document, field)
    if shape.get("type") == "array":
        return f"{_type(document, shape.get('items', {}))}[]"
    if "enum" in shape:
        return " | ".join(str(value) for value in shape["enum"] if value is not None)
    kind = shape.get("type", "object")
    return " | ".join(kind) if isinstance(kind, list) else str(kind)


def _resolved(document: dict[str, Any], shape: dict[str, Any]) -> dict[str, Any]:
    if "$ref" in shape:
        return dict(document["components"]["schemas"][shape["$ref"].rpartition("/")[2]])
    if len(shape.get("allOf", [])) == 1:
        return shape | _resolved(document, shape["allOf"][0])
    return shape
