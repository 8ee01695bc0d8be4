"""The configuration. `loading` reads it, `whole` is all of it, and each section has a module of its own.

Nothing is imported here: who needs `text` alone shall not have to wait for pydantic.
"""
