"""What sound is like, alone or against a reference, for people and for tables."""
