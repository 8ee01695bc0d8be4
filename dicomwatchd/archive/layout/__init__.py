"""What the archive's objects are besides instances: manifests, bundles, the audit chain's heads and segments."""
