"""From files to objects: in parcels, and early, while their study still arrives."""
