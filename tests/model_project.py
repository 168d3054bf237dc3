"""A shop whose contracts `desk` and `talk` bind one model in every form of answer, asked at the server of `model_server`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from model_server import ANTHROPIC, GOOGLE, OPENAI
from project import Shop, make_shop

TALK = """
async def talk(run, request):
    return {"answer": await run.model(request["form"], **request["args"])}
"""
KEY = "sk-live-0123456789abcdef0123456789"
LABELS = {"category": ["access", "network"], "priority": ["high", "low"]}
GOOD = {
    "category": {"label": "network", "confidence_per_mille": 930},
    "priority": {"label": "low", "confidence_per_mille": 610},
}
PLAN = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "properties": {
        "steps": {"type": "array", "items": {"$ref": "#/$defs/step"}, "minItems": 1},
        "confidence_per_mille": {"type": "integer"},
    },
    "required": ["steps", "confidence_per_mille"],
    "additionalProperties": False,
    "$defs": {"step": {"type": "string", "minLength": 3}},
}
PROVIDERS = {
    "openai": (f"openai:{OPENAI}", "/v1"),
    "anthropic": (f"anthropic:{ANTHROPIC}", ""),
    "google": (f"google:{GOOGLE}", ""),
}
FORMS: dict[str, dict[str, Any]] = {
    "labels": {"prompt": "sort.md"},
    "value": {"prompt": "plan.md"},
    "text": {"prompt": "write.md", "answer": "text"},
    "tools": {"prompt": "chat.md", "answer": "tools"},
}


def llm(provider: str, url: str, name: str = "main", more: str = "") -> str:
    """A section of remit.toml for a language model at an address."""
    model, path = PROVIDERS[provider]
    secret = '{ file = "model.secret" }'
    return f'[models.{name}]\nkind = "llm"\nmodel = "{model}"\nbase_url = "{url}{path}"\nsecret = {secret}\n{more}\n'


def model_shop(folder: Path, database: str, sections: str, *, timeout: str = "5s", **more: Any) -> Shop:
    """The project; `sections` declares the model `main`, and others. `more`: terms of the contract."""
    shop = make_shop(folder, database)
    with (shop.folder / "remit.toml").open("a") as file:
        file.write(f"\n{sections}")
    secret = shop.folder / "model.secret"
    secret.write_text(KEY)
    secret.chmod(0o600)
    bound = {"use": "main", "timeout": timeout, "spend_per_call": "0.10 USD"}
    models = {name: {**bound, **form} for name, form in FORMS.items()}
    actions = [{"tool": "orders.read"}, {"tool": "risk.check"}]
    budget = {"calls": 20, "spend": "2.00 USD"}
    terms: dict[str, Any] = {"models": models, "budget": budget, **more}
    shop.contract("desk", actions, **terms)
    shop.contract("talk", actions, workflow=TALK, **terms)
    write_prompts(shop, "desk")
    write_prompts(shop, "talk")
    return shop


def write_prompts(shop: Shop, contract: str) -> None:
    prompts = shop.folder / "contracts" / contract / "prompts"
    prompts.mkdir(exist_ok=True)
    (prompts / "sort.md").write_text("Sort this: {text}\n")
    (prompts / "sort.answer.json").write_text(json.dumps(LABELS))
    (prompts / "plan.md").write_text("Plan this: {goal} under {terms}\n")
    (prompts / "plan.schema.json").write_text(json.dumps(PLAN))
    (prompts / "write.md").write_text("Write about {topic}\n")
    (prompts / "chat.md").write_text("You answer for {desk}.\n")
