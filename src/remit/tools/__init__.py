"""Tools: named capabilities with strict schemas and declared effects, and the ways to import them."""
