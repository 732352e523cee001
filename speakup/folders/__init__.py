"""Many files: what is to be done, doing it, and what is done already."""
