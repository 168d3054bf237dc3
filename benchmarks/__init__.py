"""Speed and memory of the gate, beside the physical floor of the machine: `python -m benchmarks`."""
