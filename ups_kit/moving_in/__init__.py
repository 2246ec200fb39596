"""Configurations of universal_simulator, this library's ancestor, as recipes: `upskit import-config`.

Recipes are text. The tables here hold keys and names of components as strings, which are read and checked as any
recipe's are; nothing is imported from a plugin.
"""
