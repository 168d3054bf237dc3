"""Terms: all that the calls of one contract are decided by, be it a release on record or a proposal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import msgspec

from remit.backtest.rules import ToolRules, rules_of
from remit.contracts.model import Action, Contract, Limits
from remit.contracts.quantities import MICROUSD_PER_UNIT, amount
from remit.errors import ConfigError
from remit.limits.rules import ActionRules, compile_limits
from remit.policy.compile import check, principal_of
from remit.policy.session import tool_of
from remit.tools.spec import ToolSpec
from remit.values import digest


@dataclass(frozen=True, kw_only=True)
class Terms:
    """Made by `terms_of`; `release` is empty for what was never a release, `policy` the digest that events name."""

    contract: Contract
    specs: Mapping[str, ToolSpec]
    policy_text: str
    tenant_limits: Limits
    release: str
    policy: str
    tools: Mapping[str, ToolRules]

    @property
    def name(self) -> str:
        return self.contract.contract

    @cached_property
    def tenant(self) -> str:
        return self.contract.tenant or ""

    @cached_property
    def principal(self) -> str:
        return principal_of(self.contract)

    @cached_property
    def actions(self) -> Mapping[str, Action]:
        """The contract's actions and its models'."""
        return {action.tool: action for action in actions_of(self.contract)}

    @cached_property
    def limits(self) -> Mapping[str, ActionRules]:
        return compile_limits(self.contract, actions_of(self.contract), self.tenant, self.tenant_limits)

    @cached_property
    def spends(self) -> Mapping[str, int]:
        """What one call of a model may cost, in microdollars, by tool."""
        models = self.contract.models.items()
        return {f"model:{name}": amount(one.spend_per_call).units * MICROUSD_PER_UNIT for name, one in models}

    @cached_property
    def told_of(self) -> frozenset[str]:
        """The tools whose earlier calls some fact is about."""
        return frozenset(tool_of(fact) for fact in self.contract.facts.values())


def actions_of(contract: Contract) -> list[Action]:
    """The contract's actions, its models among them."""
    return [*contract.actions, *(Action(tool=f"model:{name}") for name in contract.models)]


def terms_of(
    contract: Contract, specs: Mapping[str, ToolSpec], policy_text: str, *, tenant_limits: Limits, release: str = ""
) -> Terms:
    """Compile, type-check and parse. Raises `ConfigError` with every problem, one a line."""
    granted = {action.tool: specs[action.tool] for action in actions_of(contract) if action.tool in specs}
    checked = check(contract, granted, policy_text)
    if checked.problems or checked.compiled is None:
        said = (f"policy.cedar:{p.line}: {p.message}" if p.line else p.message for p in checked.problems)
        raise ConfigError("\n".join(said))
    compiled = checked.compiled
    return Terms(
        contract=contract,
        specs=granted,
        policy_text=policy_text,
        tenant_limits=tenant_limits,
        release=release,
        policy=digest({"policy": f"{compiled.text}\n{policy_text}", "schema": compiled.types.schema}),
        tools={tool: rules_of(contract, compiled, tool, checked.rules) for tool in compiled.actions},
    )


def terms_of_bundle(release: str, bundle: Mapping[str, Any], specs: Mapping[str, ToolSpec]) -> Terms:
    """The terms of a release from what it is made of. Raises `ConfigError`."""
    contract = msgspec.convert(bundle["contract"], Contract)
    limits = msgspec.convert(bundle["limits"], Limits)
    return terms_of(contract, specs, bundle["policy"], tenant_limits=limits, release=release)
