"""Networks that others published, under the names that their weights have."""
