"""Meters for streams, in NumPy; never torch."""
