"""The styles of running that have a module of their own; each is a short function over a `Run`."""
