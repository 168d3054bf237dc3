"""`remit demo`: the gate on a live tracker, from filing tickets to comparing the tracker with the journal."""
