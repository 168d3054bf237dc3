"""The Roundup connector: a client of its REST interface, and a launcher for a tracker of one's own.

`remit.connectors.roundup.client` talks to any Roundup tracker. `remit.connectors.roundup.server` starts one, as a
process of its own; Roundup is never imported here, only run.
"""
