"""Contracts and the project around them: what their files say, held against every rule about them, and loaded."""
