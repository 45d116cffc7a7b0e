"""Programs beside their peers, and what layouts do for models."""
