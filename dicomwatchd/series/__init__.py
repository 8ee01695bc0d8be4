"""What a viewer needs of a series, ready to be handed out: the headers of its instances, where each frame is, and a
SHA-256 for each. All of it is derived from the instances in the archive: where it is lost, it is made again."""
