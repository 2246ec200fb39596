"""Packages of plugins, written from templates: `upskit new-plugin`.

`templates/package` is what every package has; `templates/KIND` is what a kind adds: the keys (`config.py`), the
component (other modules), its part of a recipe, and tests. Templates are files of text, with `$name` where a name goes.
"""
