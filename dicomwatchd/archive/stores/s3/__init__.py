"""Objects in a bucket: by botocore, and by a fast path of our own where that is as sure."""
