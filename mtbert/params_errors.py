"""Turns pydantic's errors into messages about params.yaml: one line per faulty key, with a remedy."""

import difflib
import re
from typing import Any, get_args, get_origin

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from mtbert.errors import nearest, short
from mtbert.resolve import KINDS, TOP, Resolved


def explain_all(details: list[ErrorDetails], model: type[BaseModel], resolved: Resolved) -> list[str]:
    """One line per faulty key; a fault that runs inherit is reported once, at the key that causes it.

    Args:
        details: the errors of `model.model_validate(resolved.settings)`.
    """
    lines: dict[tuple[str, str], tuple[str, int]] = {}  # (place, type of error) -> message, number of heirs
    seen: set[tuple[str, ...]] = set()
    contradictions = {(detail["loc"][1], detail["msg"]) for detail in details if _of_run(detail)}
    for detail in details:
        keys = _keys(detail, resolved.settings)
        # pydantic reports a key that fits no member of a union (a word or a number) once per member; keep one.
        if tuple(keys) in seen and detail["type"] not in ("missing", "extra_forbidden"):
            continue
        if _word_of_union(detail, keys) and type(detail["input"]) in (int, float):
            continue  # what the number lacks is reported by the union's other member
        seen.add(tuple(keys))
        keys += getattr(detail.get("ctx", {}).get("error"), "keys", ())
        if _of_run(detail):
            # The key may come from a predecessor in which it contradicts nothing, so the error names the earliest run that has the
            # contradiction: that run can set the key for itself.
            cause = keys[1]
            for before in resolved.lineages[cause][1:]:
                if (before, detail["msg"]) not in contradictions:
                    break
                cause = before
            where = ".".join(["runs", cause, *keys[2:]])
        else:
            where = resolved.place(keys)
        line = _explain(detail, keys, where, model, resolved.settings)
        fault = (where, detail["type"])
        first, heirs = lines.get(fault, (line, -1))
        lines[fault] = (first, heirs + 1)
    return [
        line + (f" (inherited by {heirs} run{'s' * (heirs > 1)})" if heirs else "") for line, heirs in lines.values()
    ]


def _of_run(detail: ErrorDetails) -> bool:
    """Whether the error is a contradiction between keys of a run, rather than a fault of one key."""
    return detail["type"] == "value_error" and detail["loc"][:1] == ("runs",)


def _word_of_union(detail: ErrorDetails, keys: list[str]) -> bool:
    """Whether the error is that a value is none of the words of a key that also takes a number."""
    return detail["type"] == "literal_error" and str(detail["loc"][-1]) != keys[-1]


def _keys(detail: ErrorDetails, settings: Any) -> list[str]:
    """The error's location without the names of union members that pydantic inserts."""
    keys: list[str] = []
    node: Any = settings
    for number, part in enumerate(detail["loc"], start=1):
        last = number == len(detail["loc"])
        inside = part in node if isinstance(node, dict) else isinstance(node, list) and part in range(len(node))
        if inside:
            node = node[part]
        elif not (last and detail["type"] == "missing"):
            continue
        keys.append(str(part))
    return keys


def _explain(detail: ErrorDetails, keys: list[str], where: str, model: type[BaseModel], settings: Any) -> str:
    if detail["type"] == "extra_forbidden":
        valid = _siblings(model, settings, keys)
        if any(keys[-1] in member.model_fields for member in _models(model, settings, keys[:-1], chosen=False)):
            kind = next(name for name in KINDS if name in valid)
            return f"unknown key {where}; it belongs to another {kind}, remove it (valid here: {', '.join(valid)})"
        return f"unknown key {where}{nearest(keys[-1], valid)}"
    if detail["type"] == "missing":
        if keys[0] == "runs" and len(keys) == 3:
            return f"missing key {where}; add it, or inherit it with `from: RUN`"
        mapping = len(keys) == 1 and get_origin(model.model_fields[keys[0]].annotation) is dict
        empty = f", or `{where}: {{}}` for none" if mapping else ""
        return f"missing key {where}; add it{empty} (valid here: {', '.join(_siblings(model, settings, keys))})"
    if detail["type"] == "literal_error":
        options = re.findall(r"'([^']+)'", str(detail.get("ctx", {}).get("expected", "")))
        number = " or a number" if _word_of_union(detail, keys) else ""
        return f"{where}: {short(detail['input'])} is not valid{nearest(str(detail['input']), options)}{number}"
    if detail["type"] in ("union_tag_not_found", "union_tag_invalid"):  # the key that selects a section's kind
        tag = str(detail["ctx"]["discriminator"]).strip("'")
        options = _tags(model, settings, keys, tag)
        if detail["type"] == "union_tag_invalid":
            given = str(detail["ctx"]["tag"])
            return f"{where}.{tag}: {given!r} is not valid{nearest(given, options)}"
        names = [str(name) for name in detail["input"]] if isinstance(detail["input"], dict) else []
        if misspelt := difflib.get_close_matches(tag, names, n=1, cutoff=0.5):
            return f"unknown key {where}.{misspelt[0]}; did you mean {tag!r}?"
        return f"missing key {where}.{tag}; add it (valid: {', '.join(options)})"
    if detail["type"] in ("model_type", "model_attributes_type", "dict_type"):
        first, *others = [list(member.model_fields) for member in _models(model, settings, keys, chosen=False)] or [[]]
        names = [name for name in first if all(name in other for other in others)]
        having = f" with {', '.join(names)}" if names else ""
        return f"{where}: must be a section{having}, not {short(detail['input'])}"
    message = detail["msg"].removeprefix("Value error, ")
    if detail["type"] == "value_error":
        return f"{where}: {message}" if keys else message
    return f"{where or 'params'}: {message[:1].lower()}{message[1:]}, not {short(detail['input'])}"


def _siblings(model: type[BaseModel], settings: Any, keys: list[str]) -> list[str]:
    """The valid keys in the section of the last of `keys`."""
    if len(keys) == 1:
        return list(TOP)
    names = [name for member in _models(model, settings, keys[:-1]) for name in member.model_fields]
    if len(keys) == 3 and keys[0] == "runs":
        # `from` is no field, since `resolve` applies it, and adds `declared`.
        return ["from", *(name for name in names if name != "declared")]
    return names


def _tags(model: type[BaseModel], settings: Any, keys: list[str], tag: str) -> list[str]:
    members = _models(model, settings, keys, chosen=False)
    return [str(value) for member in members for value in get_args(member.model_fields[tag].annotation)]


def _models(model: type[BaseModel], settings: Any, keys: list[str], chosen: bool = True) -> list[type[BaseModel]]:
    """The models that the section at `keys` may have; if `chosen`, only those that fit its objective or method."""
    candidates: list[type[BaseModel]] = [model]
    node = settings
    annotation: Any = model
    for number, key in enumerate(keys, start=1):
        node = node.get(key) if isinstance(node, dict) else None
        if get_origin(annotation) is dict:
            annotation = get_args(annotation)[1]
        else:
            annotation = next((m.model_fields[key].annotation for m in candidates if key in m.model_fields), None)
        candidates = _sections(annotation)
        if chosen or number < len(keys):
            candidates = [member for member in candidates if _fits(member, node)] or candidates
    return candidates


def _fits(model: type[BaseModel], node: Any) -> bool:
    """Whether the section's objective or method is that of the model."""
    kinds = {name: get_args(field.annotation) for name, field in model.model_fields.items() if name in KINDS}
    return isinstance(node, dict) and all(node.get(name) in values for name, values in kinds.items())


def _sections(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if get_origin(annotation) is dict:
        return []
    return [section for inner in get_args(annotation) for section in _sections(inner)]
