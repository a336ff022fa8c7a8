"""Training with TRL and transformers. Nothing is imported here, so that settings stay free of torch."""
