"""What is made anew from the rest: a catalogue from manifests, a manifest from objects and other manifests."""
