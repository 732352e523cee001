"""Training: simulated degradations, data, the GAN loop and export. Never imported by inference."""
