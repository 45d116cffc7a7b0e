"""Rewriting: the pass manager and the passes that know no dialect; `tensor/` and `language/` hold those that do."""
