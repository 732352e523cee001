"""The Hugging Face Hub: asked for files (`client`), kept (`cache`), and its troubles (`faults`)."""
