"""Verifies a record of Remit against its specification (`docs/record.md`), with no code of what wrote it."""

from __future__ import annotations

from remit_verify.keys import Keys
from remit_verify.merkle import consistency_proof, inclusion_proof, verify_consistency, verify_inclusion
from remit_verify.report import Checkpoint, Finding, Report, Tenant, Unreadable
from remit_verify.verify import Options, verify

__all__ = [
    "Checkpoint",
    "Finding",
    "Keys",
    "Options",
    "Report",
    "Tenant",
    "Unreadable",
    "consistency_proof",
    "inclusion_proof",
    "verify",
    "verify_consistency",
    "verify_inclusion",
]
