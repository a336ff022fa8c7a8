"""WHAT happens: one file per stage of the recipe, and what stages are made of."""
