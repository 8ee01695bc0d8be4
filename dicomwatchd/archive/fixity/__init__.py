"""Fixity: whether the whole archive is there and unchanged, without downloading it.

`study` judges one study by what is seen of its objects; `run` goes through all of them. What is seen comes from a
listing at a stated pace (`listed`), or from an S3 Inventory report with the checksums of a Batch Operations job.
"""
