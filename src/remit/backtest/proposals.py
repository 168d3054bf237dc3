"""Where the terms of a backtest come from: releases on record, and what somebody proposes in their place."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, cast

import msgspec

from remit.backtest.backtest import TermsOf
from remit.backtest.terms import Terms, terms_of, terms_of_bundle
from remit.contracts.document import Unreadable, read_text
from remit.contracts.files import CONTRACT_FILE
from remit.contracts.load import read_contract
from remit.contracts.model import Contract
from remit.contracts.problems import ProjectInvalid, did_you_mean, errors, quoted
from remit.contracts.subject import Known
from remit.contracts.yaml_lines import parse_yaml
from remit.errors import ConfigError, RunError
from remit.replay.old_program import specs_of

if TYPE_CHECKING:
    from remit.app import Remit


@dataclass(frozen=True, kw_only=True)
class Alternative:
    """What is to be judged by; one of the first three is given. `contract_name`: whose runs, where that isn't clear."""

    policy: Path | None = None
    contract: Path | None = None
    release: str | None = None
    contract_name: str | None = None


def recorded_terms(remit: Remit) -> TermsOf:
    """The terms of releases on record: as they were kept, or as the project's folder has them now."""
    present = _present(remit)

    def find(release: str) -> Terms:
        return _kept(remit, release) or present.get(release) or _not_to_be_found(release)

    return find


def _kept(remit: Remit, release: str) -> Terms | None:
    kept = remit.release_archive.get(release)
    if kept is None or not kept.specs:
        return None
    return terms_of_bundle(release, kept.bundle, specs_of(remit.release_archive, kept))


def _not_to_be_found(release: str) -> NoReturn:
    raise ConfigError(
        f"release `{release[:12]}` was not kept, and the project's folder is at another one; "
        "put its files back to judge its runs"
    )


def _present(remit: Remit) -> Mapping[str, Terms]:
    """By release, the terms of the contracts as the project's folder has them."""
    found: dict[str, Terms] = {}
    for folder in remit.project.contracts:
        try:
            terms = at_hand(remit, folder.name)
        except ConfigError:
            # What is broken now may be what is to be replaced.
            continue
        found[terms.release] = terms
    return found


def proposed_terms(remit: Remit, alternative: Alternative) -> Terms:
    """The terms that a proposal means. Raises `ConfigError`, `RunError` (code `release_not_found`)."""
    if alternative.release is not None:
        return _of_release(remit, alternative.release)
    if alternative.contract is not None:
        return _of_contract(remit, alternative.contract)
    if alternative.policy is not None:
        return _of_policy(remit, alternative.policy, alternative.contract_name)
    return at_hand(remit, alternative.contract_name or _only_contract(remit))


def at_hand(remit: Remit, name: str) -> Terms:
    """The terms of a contract as the project's folder has them."""
    program = remit.program(name)
    bundle: Any = program.bundle
    specs = {tool: each.spec for tool, each in program.authority.tools.items()}
    return terms_of_bundle(program.authority.release, bundle, specs)


def _of_release(remit: Remit, start: str) -> Terms:
    present = _present(remit)
    named = {*remit.release_archive.beginning_with(start), *(each for each in present if each.startswith(start))}
    if len(named) > 1:
        raise RunError(f"several releases begin with {quoted(start)}; give more of the digest", code="release_ambiguous")
    for release in named:
        found = _kept(remit, release) or present.get(release)
        if found is not None:
            return found
    raise RunError(
        f"there is no release {quoted(start)}; `remit release show CONTRACT` names the present one, `remit runs --json` those "
        "of the runs",
        code="release_not_found",
    )


def _of_policy(remit: Remit, file: Path, name: str | None) -> Terms:
    text = _text(file)
    if name is None:
        name = _contract_of(remit, file)
    base = at_hand(remit, name)
    try:
        return with_policy(base, text)
    except ConfigError as error:
        said = error.message.replace("policy.cedar:", f"{file}:")
        raise ConfigError(f"{said}\nthis is judged as the policy of contract `{name}`; `--for` names another") from error


def _contract_of(remit: Remit, file: Path) -> str:
    """The contract in whose folder a policy lies, or the only one there is."""
    contracts = remit.project.contracts
    for folder in contracts:
        if file.resolve().is_relative_to(folder.resolve()):
            return folder.name
    return _only_contract(remit)


def _only_contract(remit: Remit) -> str:
    contracts = remit.project.contracts
    if len(contracts) != 1:
        names = ", ".join(f"`{folder.name}`" for folder in contracts)
        raise ConfigError(f"the project has several contracts; say with `--for` whose policy it is: {names}")
    return contracts[0].name


def with_policy(base: Terms, text: str) -> Terms:
    """The same contract under another `policy.cedar`."""
    return terms_of(base.contract, base.specs, text, tenant_limits=base.tenant_limits)


def with_contract(base: Terms, contract: Contract) -> Terms:
    """The same tools, limits of the tenant and rules under another contract."""
    return terms_of(contract, base.specs, base.policy_text, tenant_limits=base.tenant_limits)


def _of_contract(remit: Remit, given: Path) -> Terms:
    """A contract's folder, or its `contract.yaml` alone, which then goes with the other files as they are now."""
    file = given / CONTRACT_FILE if given.is_dir() else given
    if not file.is_file():
        raise ConfigError(f"`{file}` does not exist; name a contract's folder, or a `{CONTRACT_FILE}`")
    name = _name_in(file)
    with tempfile.TemporaryDirectory(prefix="remit-backtest-") as staging:
        folder = Path(staging) / "contracts" / name
        present = [each for each in remit.project.contracts if each.name == name]
        source = given if given.is_dir() else present[0] if present else file.parent
        shutil.copytree(source, folder, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copyfile(file, folder / CONTRACT_FILE)
        return _read(remit, folder, Path(staging))


def _name_in(file: Path) -> str:
    document = parse_yaml(_text(file), str(file))
    value: Any = document.value
    name: object = cast("dict[str, Any]", value).get("contract") if isinstance(value, dict) else None
    if not isinstance(name, str) or "/" in name or name in ("", ".", ".."):
        raise ConfigError(f"`{file}` names no contract; it begins with `contract: NAME`")
    return name


def _text(file: Path) -> str:
    try:
        return read_text(file, str(file))
    except Unreadable as error:
        raise ConfigError(f"`{file}`: {error.problem.message}") from error


def _read(remit: Remit, folder: Path, root: Path) -> Terms:
    project = remit.project
    specs = {tool.spec.name: tool.spec for tool in remit.tools.values()}
    found = read_contract(folder, root, Known.of(project), specs)
    contract, policy = found.subject.contract, found.files.policy
    if errors(found.problems) or contract is None or policy is None:
        raise ProjectInvalid(found.problems)
    if contract.models:
        specs |= _models(remit, contract.contract, contract)
    filled = msgspec.structs.replace(
        contract,
        tenant=contract.tenant or project.project.tenant,
        region=contract.region or project.project.region,
    )
    return terms_of(filled, specs, policy, tenant_limits=project.limits)


def _models(remit: Remit, name: str, contract: Contract) -> Mapping[str, Any]:
    """The tools behind a contract's models, which are those of the contract at hand."""
    known = at_hand(remit, name).specs
    missing = [model for model in contract.models if f"model:{model}" not in known]
    if missing:
        hint = did_you_mean(missing[0], [each.removeprefix("model:") for each in known if each.startswith("model:")], "bound")
        raise ConfigError(f"model {quoted(missing[0])} is not bound by the contract as it is now; {hint}")
    return {tool: spec for tool, spec in known.items() if tool.startswith("model:")}


__all__ = ["Alternative", "at_hand", "proposed_terms", "recorded_terms", "with_contract", "with_policy"]
