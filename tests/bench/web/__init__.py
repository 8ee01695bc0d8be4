"""scripts/bench --web: a study in the viewer, from dicomwatchd-web beside Orthanc with its DICOMweb plug-in."""
