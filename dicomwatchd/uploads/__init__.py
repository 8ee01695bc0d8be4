"""Folders uploaded by `dicomwatchctl upload`: each is an inbox for as long as it takes, and every one ends.

`reception` checks the folder and the user who asks, `folders` keeps the descriptors, `job` brings an upload to its
end, `jobs` is what the rest of the program asks.
"""
