"""Modules: programs made of predictors."""
