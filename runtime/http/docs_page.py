"""An OpenAPI document as one HTML page: no scripts, no external resources, dark or light like the reader's system."""

import json
import re
from html import escape
from itertools import groupby
from typing import Any

Json = dict[str, Any]

_PARAMETER = re.compile(r"{(\w+)}")

STYLE = """
:root{color-scheme:light dark;--line:light-dark(#d8dee4,#30363d);--soft:light-dark(#f6f8fa,#161b22);
--dim:light-dark(#59636e,#9198a1);--accent:light-dark(#0a5c9e,#6cb6ff)}
body{font:16px/1.55 system-ui,sans-serif;max-width:62rem;margin:0 auto;padding:2rem 1rem 6rem;
background:light-dark(#fff,#0d1117);color:light-dark(#1f2328,#e6edf3)}
h1{margin:0}h2{margin:3rem 0 .5rem;text-transform:capitalize}h3{font-size:1rem;margin:0}
a{color:var(--accent);text-decoration:none}a:hover{text-decoration:underline}
p,ul{margin:.5rem 0}nav ul{columns:18rem;list-style:none;padding:0}.dim{color:var(--dim)}
code,pre,td:first-child{font:14px/1.5 ui-monospace,Menlo,Consolas,monospace}
pre{background:var(--soft);border:1px solid var(--line);border-radius:6px;padding:.75rem;overflow:auto;user-select:all}
section{border:1px solid var(--line);border-radius:8px;padding:1rem;margin:1rem 0;scroll-margin-top:1rem}
.method{display:inline-block;min-width:4rem;font-weight:700;color:var(--accent)}
table{border-collapse:collapse;width:100%;margin:.5rem 0}
td,th{text-align:left;vertical-align:top;padding:.3rem .75rem .3rem 0;border-top:1px solid var(--line)}
th{font-weight:600;border:0}summary{cursor:pointer;color:var(--dim)}
"""


def page(document: Json) -> str:
    """Return the page; all text from the document is escaped."""
    info = document["info"]
    calls = [
        (operation["tags"][0], method.upper(), path, operation)
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
    ]
    order = [tag["name"] for tag in document["tags"]]
    calls.sort(key=lambda call: order.index(call[0]))
    tags = [(tag, [call[1:] for call in group]) for tag, group in groupby(calls, key=lambda call: call[0])]
    contents = "".join(
        f'<li><a href="#{operation["operationId"]}"><code>{method} {escape(path)}</code></a></li>'
        for _, group in tags
        for method, path, operation in group
    )
    body = "".join(f"<h2>{escape(tag)}</h2>" + "".join(_call(document, *call) for call in group) for tag, group in tags)
    schemas = "".join(_named_schema(name, schema) for name, schema in document["components"]["schemas"].items())
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(info['title'])}</title><style>{STYLE}</style>"
        f"<header><h1>{escape(info['title'])}</h1><p>{_prose(info.get('description', ''))}</p>"
        '<p class="dim">For programs: <a href="/openapi.json">/openapi.json</a></p></header>'
        f"<nav><ul>{contents}</ul></nav><main>{body}<h2>Schemas</h2>{schemas}</main></html>\n"
    )


def _call(document: Json, method: str, path: str, operation: Json) -> str:
    secured = '<p class="dim">Requires a Bearer token.</p>' if operation["security"] else ""
    description = f"<p>{_prose(operation['description'])}</p>" if "description" in operation else ""
    responses = "".join(_response(document, status, response) for status, response in operation["responses"].items())
    return (
        f'<section id="{operation["operationId"]}"><h3><span class="method">{method}</span>'
        f"<code>{escape(path)}</code></h3><p>{_prose(operation['summary'])}.</p>{description}{secured}"
        f"{_parameters(operation)}{_body(operation)}"
        f"<pre>{escape(_curl(document, method, path, operation))}</pre>"
        f"<details><summary>Responses</summary><table>{responses}</table></details></section>"
    )


def _parameters(operation: Json) -> str:
    rows = "".join(
        f"<tr><td>{escape(item['name'])}<td>{item['in']}{', required' if item.get('required') else ''}"
        f"<td>{_type(item['schema'])}<td>{_prose(item.get('description', ''))}"
        for item in operation.get("parameters", ())
    )
    return f"<table>{rows}</table>" if rows else ""


def _body(operation: Json) -> str:
    return "".join(
        f'<p><span class="dim">Body, {escape(kind)}:</span> {_type(content["schema"])}</p>'
        for kind, content in operation.get("requestBody", {}).get("content", {}).items()
    )


def _response(document: Json, status: str, response: Json) -> str:
    if "$ref" in response:
        response = document["components"]["responses"][_name(response)]
    kinds = " ".join(_type(content["schema"]) for content in response.get("content", {}).values())
    headers = ", ".join(map(escape, response.get("headers", {})))
    return f'<tr><td>{status}<td>{_prose(response["description"])}<td>{kinds}<td class="dim">{headers}'


def _curl(document: Json, method: str, path: str, operation: Json) -> str:
    query = "&".join(
        f"{item['name']}=${item['name'].upper()}"
        for item in operation.get("parameters", ())
        if item["in"] == "query" and item["required"]
    )
    address = _PARAMETER.sub(lambda found: "$" + found[1].upper(), path) + (f"?{query}" if query else "")
    parts = ["curl" if method == "GET" else f"curl -X {method}", f'"$TIDEGATE{address}"']
    if operation["security"]:
        parts.append('-H "Authorization: Bearer $TOKEN"')
    content = operation.get("requestBody", {}).get("content", {})
    if content:
        kind = next(iter(content))
        example = json.dumps(_example(document, content[kind]["schema"]), ensure_ascii=False)
        parts += [f"-H 'Content-Type: {kind}'", f"-d '{example}'"]
    return " \\\n  ".join(parts)


def _example(document: Json, schema: Json) -> Any:
    """Return a value of this schema: its own example, or one with the required fields only."""
    if "$ref" in schema:
        return _example(document, document["components"]["schemas"][_name(schema)])
    for stated in ("examples", "enum"):
        if schema.get(stated):
            return schema[stated][0]
    for choice in ("anyOf", "oneOf"):
        if choice in schema:
            return _example(document, schema[choice][0])
    if schema.get("type") == "object":
        required = schema.get("required") or list(schema.get("properties", ()))[:1]
        return {name: _example(document, schema["properties"][name]) for name in required}
    if schema.get("type") == "array":
        return [_example(document, schema.get("items", {}))] * schema.get("minItems", 1)
    return {"integer": schema.get("minimum", 0), "number": 0, "boolean": True, "null": None}.get(
        schema.get("type", ""), "…"
    )


def _named_schema(name: str, schema: Json) -> str:
    required = schema.get("required", ())
    rows = "".join(
        f"<tr><td>{escape(field)}<td>{_type(kind)}<td>{'required' if field in required else ''}"
        for field, kind in schema.get("properties", {}).items()
    )
    about = f"<p>{_prose(schema.get('description', ''))}</p>"
    return f'<section id="schema-{name}"><h3>{escape(name)}</h3>{about}<table>{rows}</table></section>'


def _type(schema: Json) -> str:
    """Return a type in a few words, with its limits."""
    if "$ref" in schema:
        return f'<a href="#schema-{_name(schema)}">{_name(schema)}</a>'
    for choice in ("anyOf", "oneOf"):
        if choice in schema:
            return " or ".join(map(_type, schema[choice]))
    if "enum" in schema:
        return " or ".join(f"<code>{escape(json.dumps(value))}</code>" for value in schema["enum"])
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}))}"
    rules = [f"{rule} {schema[rule]}" for rule in _RULES if rule in schema]
    shown = escape(str(schema.get("type", "anything")))
    return shown + (f' <span class="dim">{escape(", ".join(rules))}</span>' if rules else "")


_RULES = ("format", "minLength", "maxLength", "minimum", "maximum", "default")


def _name(reference: Json) -> str:
    return str(reference["$ref"]).rsplit("/", 1)[1]


def _prose(text: str) -> str:
    """Escape the text, and show words in backquotes as code."""
    parts = escape(text).split("`")
    return "".join(f"<code>{part}</code>" if index % 2 else part for index, part in enumerate(parts))
