"""Models that a run may ask: each is a tool behind the gate like any other."""
