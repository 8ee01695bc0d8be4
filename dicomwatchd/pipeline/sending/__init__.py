"""From files to objects: in batches, and early, while their study still arrives."""
