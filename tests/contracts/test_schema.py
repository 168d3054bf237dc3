from __future__ import annotations

import re
from typing import Any

import jsonschema_rs
import msgspec
import pytest

from remit.contracts.model import Contract
from remit.contracts.project_file import ProjectFile, project_schema
from remit.contracts.schema import DIALECT, contract_schema, strict_schema

SMALLEST: dict[str, Any] = {
    "contract": "refunds",
    "owner": {"team": "care", "contact": "care@shop.example"},
    "purpose": "Pay refunds.",
    "style": "workflow",
    "input": "a.json",
    "output": "b.json",
    "actions": [{"tool": "orders.read"}],
    "budget": {"calls": 3},
    "escalate": {"to": "queue:care", "sla": "1h"},
    "success": {"metric": "right"},
    "slo": {},
}


def test_the_schema_is_valid_and_says_of_every_key_what_it_is_for() -> None:
    schema = contract_schema()
    assert schema["$schema"] == DIALECT
    jsonschema_rs.Draft202012Validator({"$ref": DIALECT}).validate(schema)
    for name, definition in schema["$defs"].items():
        assert definition["description"], name
        for key, field in definition.get("properties", {}).items():
            assert field["description"], f"{name}.{key}"
            assert field["title"] == key.replace("_", " ")


def test_keys_of_which_the_form_matters_have_examples_that_fit() -> None:
    for schema in (contract_schema(), project_schema()):
        for definition in schema["$defs"].values():
            for field in definition.get("properties", {}).values():
                if "pattern" in field:
                    assert field["examples"]
                for example in field.get("examples", []):
                    jsonschema_rs.Draft202012Validator({"$defs": schema["$defs"], **field}).validate(example)


def test_choices_are_explained() -> None:
    assert (
        "`observe`: Decided and recorded, never carried out." in contract_schema()["$defs"]["Autonomy"]["description"]
    )


def test_no_key_may_be_null_and_no_object_is_open() -> None:
    text = msgspec.json.encode([contract_schema(), project_schema()]).decode()
    assert '"null"' not in text
    assert not re.search(r'"default":null', text)
    for schema in (contract_schema(), project_schema()):
        for definition in schema["$defs"].values():
            if "properties" in definition:
                assert definition["additionalProperties"] is False


def test_the_schema_and_the_types_accept_the_same() -> None:
    validator = jsonschema_rs.Draft202012Validator(strict_schema(Contract))
    assert validator.is_valid(SMALLEST)
    assert msgspec.convert(SMALLEST, Contract).contract == "refunds"
    for key in SMALLEST:
        less = {name: value for name, value in SMALLEST.items() if name != key}
        assert not validator.is_valid(less)
        with pytest.raises(msgspec.ValidationError):
            msgspec.convert(less, Contract)


def test_editors_accept_numbers_where_the_file_may_have_them_without_quotes() -> None:
    unquoted = {**SMALLEST, "escalate": {**SMALLEST["escalate"], "when": {"confidence_below": 0.8}}}
    unquoted["success"] = {"metric": "right", "baseline": {"error_rate": 0.04}}
    assert jsonschema_rs.Draft202012Validator(contract_schema()).is_valid(unquoted)
    assert not jsonschema_rs.Draft202012Validator(strict_schema(Contract)).is_valid(unquoted)


def test_changing_an_editors_schema_changes_nothing_that_is_checked() -> None:
    contract_schema()["$defs"].clear()
    project_schema()["$defs"].clear()
    assert strict_schema(Contract)["$defs"]
    assert strict_schema(ProjectFile)["$defs"]


def test_what_is_only_recorded_says_so() -> None:
    defs = contract_schema()["$defs"]
    for name, key in (
        ("Contract", "slo"),
        ("Contract", "success"),
        ("Success", "metric"),
        ("EscalateWhen", "data_missing"),
    ):
        assert "ecorded" in defs[name]["properties"][key]["description"], f"{name}.{key}"
    assert "`auto`" in defs["Action"]["properties"]["autonomy"]["description"]
    assert "`auto`: Carried out" in defs["Autonomy"]["description"]
