"""Recordings in and out: containers, codecs, videos and pipes; never torch."""
