"""`--model`: an LLM in the classifier's place."""

from __future__ import annotations

import os
import re
from pathlib import Path

from remit.errors import ConfigError


def use_model(folder: Path, model: str) -> None:
    """Rewrite the model section of the demo's remit.toml.

    `model` is `provider:name` (its key in `<PROVIDER>_API_KEY`), or `http://host:port/v1#name` for a server that
    speaks OpenAI's interface. Raises `ConfigError`.
    """
    if model.startswith(("http://", "https://")):
        address, _, name = model.partition("#")
        section = f'kind = "llm"\nmodel = "openai:{name or "default"}"\nbase_url = "{address}"\n'
    else:
        provider, _, name = model.partition(":")
        if not name or re.fullmatch(r"[a-z][a-z0-9-]*", provider) is None or '"' in name:
            raise ConfigError(f"`{model}` is not a model; write `openai:<name>`, `anthropic:<name>` or an address")
        variable = f"{provider.upper().replace('-', '_')}_API_KEY"
        if variable not in os.environ:
            raise ConfigError(f"model `{model}` needs a key; set the environment variable `{variable}`")
        section = f'kind = "llm"\nmodel = "{model}"\nsecret = {{ env = "{variable}" }}\n'
    path = folder / "remit.toml"
    text = path.read_text(encoding="utf-8")
    text = re.sub(r"(?ms)^\[models\.classifier\]\n.*?(?=^\[|\Z)", lambda _: f"[models.classifier]\n{section}\n", text)
    path.write_text(text, encoding="utf-8")
