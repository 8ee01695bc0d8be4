"""Folders handed in by `dicomwatchctl upload`: each is an inbox for as long as it takes, and every one ends.

`reception` looks at what is handed in and at who does it, `handed` keeps the descriptors, `job` brings an upload to its
end, `desk` is what the rest of the program asks.
"""
