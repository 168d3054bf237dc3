"""`remit demo`: the gate on a live tracker, from filing tickets to proving that the record is true."""
