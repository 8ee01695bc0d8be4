"""scripts/bench --receive: dicomwatchd-receive beside other receivers of DICOM objects."""
