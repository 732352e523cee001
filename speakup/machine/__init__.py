"""This machine: what is wrong with the installation, and how fast it is."""
