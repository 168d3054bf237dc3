"""Cases: what a person must do. Approve a call, take over an escalation, settle what nobody knows."""
