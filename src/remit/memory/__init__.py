"""What agents know: documents that they may retrieve under everybody's rights, and the context of one run."""
