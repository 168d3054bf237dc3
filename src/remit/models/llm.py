"""Language models behind the same answers as the classifier's, through Pydantic AI's direct interface.

`openai:<model>`, `anthropic:<model>` and the other providers it knows; with `base_url` any OpenAI-compatible server.
The prompt's file `prompts/<name>.md` is filled with the call's arguments; `prompts/<name>.answer.json` lists the labels
of each head. An answer that does not meet that is returned with what is wrong, a bounded number of times.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, cast

from remit.contracts.load import LoadedContract
from remit.contracts.model import ModelBinding
from remit.contracts.project_file import ModelSection
from remit.contracts.quantities import duration_ms
from remit.errors import ConfigError, ToolFailed
from remit.identity.secrets import SecretStore
from remit.models.tools import INPUT_SCHEMA, answer_schema, with_overall
from remit.tools.spec import Effect, Idempotency, Retry, Tool, ToolContext, ToolSpec
from remit.values import Json, ValueRefused, parse

if TYPE_CHECKING:
    from pydantic_ai.messages import ModelMessage
    from pydantic_ai.models import Model

_CORRECTIONS = 2
_ANSWER = (
    "\n\nAnswer with one JSON object and nothing else: for each of these keys an object with `label`, one of the "
    "listed ones, and `confidence_per_mille`, an integer from 0 to 1000.\n"
)


def llm_tool(
    name: str, binding: ModelBinding, section: ModelSection, loaded: LoadedContract, secrets: SecretStore
) -> Tool:
    """The tool `model:<name>` of a language model. Raises `ConfigError` for a prompt or provider that is missing."""
    template, labels = _prompt(binding, loaded)
    model = _model(section, secrets)
    heads = list(labels)
    named = section.model or name
    spec = ToolSpec(
        name=f"model:{name}",
        description=f"{section.model or section.base_url}, asked with prompt `{binding.prompt}`",
        input_schema=INPUT_SCHEMA,
        output_schema=answer_schema(heads),
        effects=frozenset({Effect.READ, Effect.EGRESS}),
        timeout_ms=duration_ms(binding.timeout),
        retry=Retry(attempts=3, backoff_ms=500),
        idempotency=Idempotency.SAFE,
        usage="usage",
    )

    async def ask(_context: ToolContext, args: Mapping[str, Json]) -> Json:
        filled = _fill(template, args) + _ANSWER + json.dumps(labels)
        answer, usage = await _ask(model, filled, labels)
        return with_overall(answer, args.get("decide")) | {"usage": {**usage, "model": named}}

    return Tool(spec=spec, function=ask)


def _prompt(binding: ModelBinding, loaded: LoadedContract) -> tuple[str, dict[str, list[str]]]:
    text = loaded.prompts.get(binding.prompt or "")
    if text is None:
        raise ConfigError(f"a language model needs a prompt; name a file of `prompts/` in contract `{loaded.name}`")
    name = f"{PurePath(binding.prompt or '').stem}.answer.json"
    listed = loaded.prompts.get(name)
    if listed is None:
        raise ConfigError(f"`prompts/{name}` lists the labels that the model may answer; add it to contract `{loaded.name}`")
    return text, json.loads(listed)


def _fill(template: str, args: Mapping[str, Json]) -> str:
    """Put the arguments where the template names them; braces inside an argument mean nothing."""
    parts = template.split("{")
    filled = parts[0]
    for part in parts[1:]:
        key, closed, rest = part.partition("}")
        filled += f"{args.get(key, '')}{rest}" if closed and key.isidentifier() else "{" + part
    return filled


def _model(section: ModelSection, secrets: SecretStore) -> Model:
    try:
        from pydantic_ai.models import infer_model
        from pydantic_ai.models.openai import OpenAIChatModel
        from pydantic_ai.providers import infer_provider_class
        from pydantic_ai.providers.openai import OpenAIProvider
    except ImportError as error:
        raise ConfigError("language models need more: `pip install 'remit[llm]'`") from error
    key = secrets.resolve("model", section.secret).reveal() if section.secret else None
    provider, _, name = (section.model or "").partition(":")
    if section.base_url:
        server = OpenAIProvider(base_url=section.base_url, api_key=key or "none-needed")
        return OpenAIChatModel(name or provider, provider=_asked_once(server))
    if key is None:
        raise ConfigError(f"model `{section.model}` needs a key; give its `secret` in remit.toml")

    def with_key(provider_name: str) -> Any:
        made: Any = infer_provider_class(provider_name)
        return _asked_once(made(api_key=key))

    return infer_model(section.model or "", provider_factory=with_key)


def _asked_once(provider: Any) -> Any:
    """The gate tries again as the tool's retry rule says, within its time-out; a client's own retries would hide there."""
    if hasattr(provider.client, "max_retries"):
        provider.client.max_retries = 0
    return provider


async def _ask(model: Model, prompt: str, labels: dict[str, list[str]]) -> tuple[dict[str, Json], dict[str, Json]]:
    """Ask, and ask for a correction where the answer does not meet what was asked for."""
    from pydantic_ai.direct import model_request
    from pydantic_ai.exceptions import ModelAPIError, ModelHTTPError, UnexpectedModelBehavior
    from pydantic_ai.messages import ModelRequest

    messages: list[ModelMessage] = [ModelRequest.user_text_prompt(prompt)]
    usage = {"cost_microusd": 0, "tokens_in": 0, "tokens_out": 0}
    for _ in range(_CORRECTIONS + 1):
        try:
            response = await model_request(model, messages)
        except ModelHTTPError as error:
            busy = error.status_code == 429 or error.status_code >= 500
            raise ToolFailed(
                f"the model's server answered {error.status_code}",
                code="model_http",
                retryable=busy,
                retry_after_ms=_retry_after_ms(error),
            ) from error
        except ModelAPIError as error:
            message = "the model's server can't be reached, or does not answer as one"
            raise ToolFailed(message, code="model_unavailable", retryable=True) from error
        except UnexpectedModelBehavior as error:
            message = "the model's server answered, but not as its interface has it"
            raise ToolFailed(message, code="model_answer_invalid") from error
        _count(usage, response)
        answer = _understand(response.text or "", labels)
        if isinstance(answer, dict):
            return answer, usage
        messages += [response, ModelRequest.user_text_prompt(f"That is not what was asked for: {answer}")]
    raise ToolFailed("the model did not give an answer of the form asked for", code="model_answer_invalid")


def _retry_after_ms(error: Exception) -> int | None:
    """How long a busy server asks to be left alone, if it says so in seconds (RFC 9110, section 10.2.3)."""
    headers: Mapping[str, str] = getattr(getattr(error.__cause__, "response", None), "headers", {})
    asked = headers.get("retry-after", "")
    return int(asked) * 1000 if asked.isascii() and asked.isdigit() and len(asked) < 6 else None


def _count(usage: dict[str, int], response: Any) -> None:
    usage["tokens_in"] += response.usage.input_tokens or 0
    usage["tokens_out"] += response.usage.output_tokens or 0
    try:
        usage["cost_microusd"] += int(response.cost().total_price * 1_000_000)
    except (LookupError, ValueError, AssertionError):
        # A model without a known price: tokens are on record, its cost is not claimed.
        return


def _understand(text: str, labels: dict[str, list[str]]) -> dict[str, Json] | str:
    """The answer, or what is wrong with it in words for the model."""
    start, end = text.find("{"), text.rfind("}")
    try:
        found = parse(text[start : end + 1])
    except ValueRefused as error:
        return error.message
    if not isinstance(found, dict) or set(cast("dict[str, Json]", found)) != set(labels):
        return f"the keys must be exactly {', '.join(labels)}"
    answer = cast("dict[str, Json]", found)
    for head, allowed in labels.items():
        if not isinstance(answer[head], dict):
            return f"`{head}` must be an object"
        given = cast("dict[str, Any]", answer[head])
        if set(given) != {"label", "confidence_per_mille"}:
            return f"`{head}` must hold exactly `label` and `confidence_per_mille`"
        confidence = given["confidence_per_mille"]
        if given["label"] not in allowed:
            return f"`{head}.label` must be one of {', '.join(allowed)}"
        if type(confidence) is not int or not 0 <= confidence <= 1000:
            return f"`{head}.confidence_per_mille` must be an integer from 0 to 1000"
    return answer
