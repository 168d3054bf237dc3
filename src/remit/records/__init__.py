"""Records management: what people may do to the record, what is shown, kept, held back and destroyed of it, and when."""
