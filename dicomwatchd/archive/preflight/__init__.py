"""What of the cloud's side protects the archive: asked of bucket, role and table, each with what to do about it."""
