"""Identity: principals, short-lived tokens, their keys, external issuers, the tools' credentials."""
