"""From a name to a network with its weights: what is bundled, published, cached and fetched."""
