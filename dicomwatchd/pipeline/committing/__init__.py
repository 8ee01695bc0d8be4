"""Storage Commitment: what only the daemon can tell, whether the archive provably holds what a modality asks for."""
