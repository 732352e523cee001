"""What one step of the chain does to a stream of blocks, and how the steps are joined."""
