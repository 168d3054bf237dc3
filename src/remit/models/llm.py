"""Language models, through Pydantic AI's direct interface.

`openai:<model>`, `anthropic:<model>`, `google:<model>` and the other providers it knows. With `base_url` the provider's
interface at that address; a server that speaks OpenAI's if none is named, or one that Remit has no address for.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

from remit.contracts.model import AnswerKind
from remit.contracts.project_file import ModelSection
from remit.errors import ConfigError
from remit.identity.secrets import SecretStore
from remit.models.interface import (
    ChatMessage,
    Fault,
    ModelAnswer,
    ModelFailed,
    ModelRequest,
    OfferedTool,
    OnText,
    WantedCall,
)
from remit.models.prices import cost_by_list, cost_by_section
from remit.values import Json, ValueRefused, parse

if TYPE_CHECKING:
    from pydantic_ai.messages import ModelMessage, ModelResponse
    from pydantic_ai.models import Model

_AT_AN_ADDRESS = ("anthropic", "google", "openai")
"""Providers whose interface is spoken at a `base_url`; any other name there is OpenAI's."""
_LEGAL = 64
"""The longest name of a tool that all providers take; in it letters, digits, `_` and `-`."""
_FINISHES = {"tool_call": "tool_calls", "content_filter": "refusal"}


class LanguageModel:
    """One model of a provider. Raises `ConfigError` for a provider or a key that is missing."""

    corrects = True

    def __init__(self, section: ModelSection, secrets: SecretStore) -> None:
        self.name = section.model or section.base_url or ""
        self._section = section
        self._model = _model(section, secrets)
        self._settings = _settings(section)

    async def ask(self, request: ModelRequest, on_text: OnText | None) -> ModelAnswer:
        from pydantic_ai.direct import model_request
        from pydantic_ai.models import ModelRequestParameters

        names = {legal_name(each.name): each.name for each in request.tools}
        tools = [_definition(each) for each in request.tools]
        parameters = ModelRequestParameters(function_tools=tools)
        messages, settings = list(_messages(request)), self._settings_for(request)
        streamed: list[Any] = []
        with _failures(lambda: self._spent(streamed)):
            if on_text is not None and request.answer in (AnswerKind.TEXT, AnswerKind.TOOLS):
                response = await self._stream(messages, settings, parameters, on_text, streamed)
            else:
                response = await model_request(
                    self._model, messages, model_settings=settings, model_request_parameters=parameters
                )
        if getattr(response, "state", "complete") != "complete" or (streamed and not _has_ended(response)):
            raise _cut_off(self._counted(response))
        if response.finish_reason is None:
            raise _broken(self._counted(response))
        return self._answer(response, response.finish_reason, names)

    async def _stream(
        self, messages: Sequence[ModelMessage], settings: Any, parameters: Any, on_text: OnText, streamed: list[Any]
    ) -> ModelResponse:
        from pydantic_ai.direct import model_request_stream

        opened = model_request_stream(
            self._model, messages, model_settings=settings, model_request_parameters=parameters
        )
        async with opened as stream:
            streamed.append(stream)
            async for text in _texts(stream):
                on_text(text)
            return stream.get()

    def _settings_for(self, request: ModelRequest) -> Any:
        if request.answer is AnswerKind.TOOLS and self.name.startswith("anthropic:"):
            # A conversation is sent again and again, each time a little longer; what it began with is cached.
            cached = dict.fromkeys(("anthropic_cache_instructions", "anthropic_cache_tool_definitions", "anthropic_cache"), True)
            return {**self._settings, **cached}
        return self._settings

    def _answer(self, response: ModelResponse, reason: str, names: Mapping[str, str]) -> ModelAnswer:
        from pydantic_ai.messages import ToolCallPart

        calls: list[WantedCall] = []
        problem = ""
        for part in response.parts:
            if isinstance(part, ToolCallPart):
                tool = names.get(part.tool_name, part.tool_name)
                args, wrong = _arguments(part.args)
                problem = problem or (f"the arguments of the call of `{tool}`: {wrong}" if wrong else "")
                calls.append(WantedCall(id=part.tool_call_id, tool=tool, args=args))
        finish = _FINISHES.get(reason, reason)
        details: Mapping[str, Any] = response.provider_details or {}
        said = details.get("refusal") if finish == "refusal" else None
        return self._counted(
            response,
            text=response.text or (said if isinstance(said, str) else None),
            calls=tuple(calls),
            finish=finish,
            problem=problem,
        )

    def _counted(self, response: Any, **said: Any) -> ModelAnswer:
        """An answer with what it cost."""
        usage = response.usage
        tokens = {
            "tokens_in": usage.input_tokens or 0,
            "tokens_out": usage.output_tokens or 0,
            "tokens_cached": usage.cache_read_tokens or 0,
        }
        price = self._section.price
        cost = cost_by_list(response) if price is None else cost_by_section(price, **tokens)
        return ModelAnswer(**tokens, cost_microusd=cost, **said)

    def _spent(self, streamed: list[Any]) -> ModelAnswer | None:
        """What a stream that broke off had used until then, as far as the provider had said."""
        return self._counted(streamed[0].get()) if streamed else None


# How a model is reached


def _model(section: ModelSection, secrets: SecretStore) -> Model:
    try:
        from pydantic_ai.models import infer_model
        from pydantic_ai.providers import infer_provider_class
    except ImportError as error:
        raise ConfigError("language models need more: `pip install 'remit[llm]'`") from error
    key = secrets.resolve("model", section.secret).reveal() if section.secret else None
    provider, named, name = (section.model or "").partition(":")
    if section.base_url is None and key is None:
        raise ConfigError(f"model `{section.model}` needs a key; give its `secret` in remit.toml")
    if section.base_url is not None and provider not in _AT_AN_ADDRESS:
        named, name, provider = ":", name if named else provider, "openai"
    address: dict[str, Any] = {} if section.base_url is None else {"base_url": section.base_url}

    def reached(provider_name: str) -> Any:
        made: Any = infer_provider_class(provider_name)
        return _asked_once(made(api_key=key or "none-needed", **address))

    # A server that speaks OpenAI's interface speaks that of its chat, not that of its responses.
    is_chat = section.base_url is not None and provider == "openai"
    return infer_model(f"{'openai-chat' if is_chat else provider}:{name}", provider_factory=reached)


def _asked_once(provider: Any) -> Any:
    """Whoever asks decides what is tried again, within the time-out; a client's own retries would hide there."""
    if hasattr(provider.client, "max_retries"):
        provider.client.max_retries = 0
    return provider


def _settings(section: ModelSection) -> dict[str, Any]:
    said: dict[str, Any] = {}
    if section.temperature is not None:
        said["temperature"] = float(section.temperature)
    if section.max_tokens is not None:
        said["max_tokens"] = section.max_tokens
    return said


# What is sent


def legal_name(name: str) -> str:
    """The name of a tool as every provider takes it. No name holds a hyphen, so that no two become one."""
    legal = name.replace(".", "-")
    if len(legal) <= _LEGAL:
        return legal
    return f"{legal[: _LEGAL - 14]}--{hashlib.sha256(name.encode()).hexdigest()[:12]}"


def _definition(tool: OfferedTool) -> Any:
    from pydantic_ai.tools import ToolDefinition

    return ToolDefinition(
        name=legal_name(tool.name), description=tool.description, parameters_json_schema=dict(tool.input_schema)
    )


def _messages(request: ModelRequest) -> Iterator[ModelMessage]:
    """The conversation as Pydantic AI has it: what people and tools say between two turns of the model is one message."""
    from pydantic_ai.messages import ModelRequest as Asked
    from pydantic_ai.messages import (
        ModelRequestPart,
        ModelResponse,
        TextPart,
        ToolCallPart,
        ToolReturnPart,
        UserPromptPart,
    )

    tools: dict[str, str] = {}
    waiting: list[ModelRequestPart] = []
    for message in request.messages:
        if message.role != "assistant":
            waiting.append(_said(message, tools, UserPromptPart, ToolReturnPart))
            continue
        if waiting:
            yield Asked(parts=waiting, instructions=request.system or None)
            waiting = []
        tools |= {call.id: legal_name(call.tool) for call in message.calls}
        texts = [TextPart(content=message.text)] if message.text.strip() else []
        calls = [ToolCallPart(tool_name=legal_name(c.tool), args=c.args, tool_call_id=c.id) for c in message.calls]
        if texts or calls:
            yield ModelResponse(parts=[*texts, *calls])
    if waiting:
        yield Asked(parts=waiting, instructions=request.system or None)


def _said(message: ChatMessage, tools: Mapping[str, str], user: Any, tool: Any) -> Any:
    if message.role == "user":
        return user(content=message.text)
    name = tools.get(message.call_id, "unknown")
    return tool(tool_name=name, content=message.text, tool_call_id=message.call_id)


# What comes back


async def _texts(stream: Any) -> AsyncIterator[str]:
    from pydantic_ai.messages import PartDeltaEvent, PartStartEvent, TextPart, TextPartDelta

    async for event in stream:
        if isinstance(event, PartStartEvent) and isinstance(event.part, TextPart):
            yield event.part.content
        elif isinstance(event, PartDeltaEvent) and isinstance(event.delta, TextPartDelta):
            yield event.delta.content_delta


def _has_ended(response: ModelResponse) -> bool:
    """Whether the provider itself has said why a stream ended; where it has not, Pydantic AI takes it for an end."""
    details: Mapping[str, Any] = response.provider_details or {}
    return bool(details.get("finish_reason")) or response.finish_reason == "content_filter"


def _arguments(given: Any) -> tuple[Json, str]:
    """The arguments of a wanted call, and what is wrong with them."""
    if not isinstance(given, str):
        return given or {}, ""
    try:
        return (parse(given) if given.strip() else {}), ""
    except ValueRefused as error:
        return {}, error.message


@contextmanager
def _failures(spent: Callable[[], ModelAnswer | None]) -> Generator[None]:
    """What goes wrong at the provider, as `ModelFailed`: none of it says anything that the server said."""
    from pydantic_ai.exceptions import ModelAPIError, ModelHTTPError, UnexpectedModelBehavior, UserError

    try:
        yield
    except ModelHTTPError as error:
        raise _http(error, spent()) from error
    except ModelAPIError as error:
        raise (_cut_off(spent()) if _is_transport(error) else _broken(spent())) from error
    except UnexpectedModelBehavior as error:
        raise _broken(spent()) from error
    except (UserError, ValueError, TypeError, KeyError, AttributeError, LookupError) as error:
        # Bodies that a client library stumbles over, each in its own way.
        raise _broken(spent()) from error
    except Exception as error:
        if _is_transport(error):
            raise _cut_off(spent()) from error
        if type(error).__module__.partition(".")[0] in ("openai", "anthropic", "google"):
            raise _broken(spent()) from error
        raise


def _is_transport(error: BaseException | None) -> bool:
    """Whether the connection failed, in whichever library's words."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, OSError | asyncio.IncompleteReadError):
            return True
        names = {each.__name__ for each in type(error).__mro__}
        if names & {"TransportError", "APIConnectionError", "ModelConnectionError", "StreamError"}:
            return True
        error = error.__cause__ or error.__context__
    return False


def _cut_off(spent: ModelAnswer | None) -> ModelFailed:
    message = "its server can't be reached, or broke off" if spent is None else "its server broke off in the middle of an answer"
    why = "unreachable" if spent is None else "cut off"
    return ModelFailed(message, code="model_unavailable", fault=Fault.BUSY, why=why, spent=spent)


def _broken(spent: ModelAnswer | None) -> ModelFailed:
    message = "its server answered, but not as its interface has it"
    return ModelFailed(message, code="model_answer_invalid", fault=Fault.BROKEN, why="not its interface", spent=spent)


_BARRED = frozenset({401, 402, 403, 404})


def _http(error: Any, spent: ModelAnswer | None) -> ModelFailed:
    status: int = error.status_code
    if status in (408, 409, 429) or status >= 500:
        fault = Fault.BUSY
    else:
        fault = Fault.BARRED if status in _BARRED else Fault.WRONG
    return ModelFailed(
        f"its server answered {status}",
        code="model_http",
        fault=fault,
        why=f"http {status}",
        retry_after_ms=retry_after_ms(_headers(error).get("retry-after", "")),
        spent=spent,
    )


def _headers(error: Any) -> Mapping[str, str]:
    found: Any = getattr(error, "headers", None) or getattr(getattr(error.__cause__, "response", None), "headers", {})
    return {str(name).lower(): str(value) for name, value in dict(found).items()}


def retry_after_ms(asked: str, now: datetime | None = None) -> int | None:
    """How long a busy server asks to be left alone: seconds, or a date (RFC 9110, section 10.2.3)."""
    if asked.isascii() and asked.isdigit():
        return int(asked) * 1000 if len(asked) < 6 else None
    try:
        until = parsedate_to_datetime(asked)
    except ValueError:
        return None
    left = until - (now or datetime.now(UTC))
    return max(0, round(left.total_seconds() * 1000))
