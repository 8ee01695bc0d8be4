"""Getting a study back: which files it has (plan), where they go (folder), and the parallel copying (fetcher)."""

from dicomwatchd.fetch.fetcher import Fetcher
from dicomwatchd.fetch.plan import Doubts, by_uid, file_names, look_up, plan
from dicomwatchd.fetch.report import FetchFailure, FetchProgress, FetchReport

__all__ = [
    "Doubts",
    "FetchFailure",
    "FetchProgress",
    "FetchReport",
    "Fetcher",
    "by_uid",
    "file_names",
    "look_up",
    "plan",
]
